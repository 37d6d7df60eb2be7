"""Small services handed to parts: time, noise keys and step costs."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Injected time, so that simulators and tests can own it."""

    def now_s(self) -> float:
        """Monotonic seconds."""
        ...


class StepCosts(Protocol):
    """Measured cost of a step; readable by policies, routers and simulators."""

    def seconds(self, num_tokens: int, context_tokens: int, num_rows: int) -> float:
        """Estimated seconds of a step; 0.0 while nothing was measured."""
        ...

    def table(self) -> list[dict[str, float]]:
        """What was measured: sizes of steps (powers of two that they lie below) and seconds."""
        ...

    def record(self, num_tokens: int, context_tokens: int, num_rows: int, seconds: float) -> None:
        """Correct the table with a step just run."""
        ...
