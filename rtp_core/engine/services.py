"""Clock and step-cost table handed to every part."""

from __future__ import annotations

import time
from collections.abc import Callable

from rtp_core.observe.timeline import Phase, Timeline


class MonotonicClock:
    """The system's monotonic clock; comparable between processes of one machine."""

    def now_s(self) -> float:
        """Seconds since an arbitrary start."""
        return time.monotonic()


class Stopwatch:
    """Makes a timeline lap by lap."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began_s = self._last_s = clock()
        self._phases: list[Phase] = []

    def lap(self, name: str, num_bytes: int = 0, note: str = "") -> None:
        """What was done since the last lap was `name`."""
        now_s = self._clock()
        self._phases.append(Phase(name, now_s - self._last_s, num_bytes, note))
        self._last_s = now_s

    def now_s(self) -> float:
        """Of the clock that laps are measured with."""
        return self._clock()

    def beside(self, phase: Phase) -> None:
        """Work that another thread did, between `phase.began_s` and some time before now."""
        self._phases.append(phase)

    @property
    def timeline(self) -> Timeline:
        """The laps so far."""
        return Timeline(self._began_s, tuple(self._phases))


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

    def table(self) -> list[dict[str, float]]:
        """The buckets, smallest steps first."""
        return [
            {
                "tokens_below": 2**tokens,
                "context_below": 2**context,
                "rows_below": 2**rows,
                "seconds": seconds,
            }
            for (tokens, context, rows), seconds in sorted(self._table.items())
        ]

    def record(self, num_tokens: int, context_tokens: int, num_rows: int, seconds: float) -> None:
        """Blend a measured step into its bucket."""
        key = _bucket(num_tokens, context_tokens, num_rows)
        before = self._table.get(key)
        self._table[key] = seconds if before is None else before + self._WEIGHT * (seconds - before)


def _bucket(num_tokens: int, context_tokens: int, num_rows: int) -> tuple[int, int, int]:
    return num_tokens.bit_length(), context_tokens.bit_length(), num_rows.bit_length()
