"""Time and step costs that a test owns."""

from __future__ import annotations


class ManualClock:
    """`api.Clock` that stands still until `advance`."""

    def __init__(self, now_s: float = 0.0) -> None:
        self._now_s = now_s

    def now_s(self) -> float:
        """Seconds since the test began."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Move on; time never goes back."""
        self._now_s += max(0.0, seconds)


class FlatCosts:
    """`api.StepCosts` with a price a token; `recorded` keeps what was measured."""

    def __init__(self, seconds_per_token: float = 0.001) -> None:
        self._price_s = seconds_per_token
        self.recorded: list[tuple[int, int, int, float]] = []

    def seconds(self, num_tokens: int, context_tokens: int, num_rows: int) -> float:
        """Context and rows are free."""
        del context_tokens, num_rows
        return self._price_s * num_tokens

    def table(self) -> list[dict[str, float]]:
        """One row for all."""
        return [{"tokens_below": 2.0, "seconds": self._price_s}]

    def record(self, num_tokens: int, context_tokens: int, num_rows: int, seconds: float) -> None:
        """Keep the measurement; the price stays."""
        self.recorded.append((num_tokens, context_tokens, num_rows, seconds))
