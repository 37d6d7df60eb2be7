"""What the engine asks of the device side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from rtp_core.api import StepPlan, StepResult

Pending = Callable[[], StepResult]
"""Waits for a step that was launched; raises what the step raised."""


class StepRunner(Protocol):
    """Executes plans in the order in which they are launched; used by the engine thread only."""

    @property
    def most_in_flight(self) -> int:
        """Steps worth launching before the first one's result is read; 1 runs in `launch`."""
        ...

    def launch(self, plan: StepPlan) -> Pending:
        """Start a step. The plan's views are read before this returns."""
        ...
