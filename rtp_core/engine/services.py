"""Clock and step-cost table handed to every part."""

from __future__ import annotations

import time


class MonotonicClock:
    """The system's monotonic clock; comparable between processes of one machine."""

    def now_s(self) -> float:
        """Seconds since an arbitrary start."""
        return time.monotonic()


class MeasuredCosts:
    """Step seconds by power-of-two buckets of (tokens, context, rows), corrected by EMA."""

    _WEIGHT = 0.2

    def __init__(self) -> None:
        self._table: dict[tuple[int, int, int], float] = {}

    def seconds(self, num_tokens: int, context_tokens: int, num_rows: int) -> float:
        """Estimate from the nearest measured bucket; 0.0 while the table is empty."""
        if not self._table:
            return 0.0
        wanted = _bucket(num_tokens, context_tokens, num_rows)
        nearest = min(
            self._table, key=lambda key: sum(abs(a - b) for a, b in zip(key, wanted, strict=True))
        )
        return self._table[nearest]

    def record(self, num_tokens: int, context_tokens: int, num_rows: int, seconds: float) -> None:
        """Blend a measured step into its bucket."""
        key = _bucket(num_tokens, context_tokens, num_rows)
        before = self._table.get(key)
        self._table[key] = seconds if before is None else before + self._WEIGHT * (seconds - before)


def _bucket(num_tokens: int, context_tokens: int, num_rows: int) -> tuple[int, int, int]:
    return num_tokens.bit_length(), context_tokens.bit_length(), num_rows.bit_length()
