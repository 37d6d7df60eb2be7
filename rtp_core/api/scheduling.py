"""Scheduling policies: who goes first and who gives way. Plain Python, deterministic."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class QueuedRequest:
    """What a policy may know of a sequence. `num_tokens` counts prompt plus outputs."""

    sequence_id: str
    arrival_time_s: float
    priority: int
    tenant: str
    num_tokens: int
    max_new_tokens: int


CachedTokens = Callable[[str], int]
"""Tokens of a waiting sequence that the prefix cache holds now."""


class SchedulingPolicy(Protocol):
    """Owns the order of waiting work; the scheduler owns everything else.

    A preempted or resumed sequence is added again with its first arrival time.
    """

    def add(self, request: QueuedRequest) -> None:
        """A sequence begins to wait."""
        ...

    def remove(self, sequence_id: str) -> None:
        """It was admitted; called again when it ends. Unknown ids are ignored."""
        ...

    def candidates(self, now_s: float, cached: CachedTokens) -> Iterable[str]:
        """Waiting ids, best first. The scheduler stops at the first that does not fit."""
        ...

    def on_scheduled(self, sequence_id: str, num_tokens: int) -> None:
        """`num_tokens` of this step were granted to an admitted sequence."""
        ...

    def victim(self, running: Sequence[QueuedRequest]) -> str:
        """Which of `running` (never empty) to preempt when blocks run out."""
        ...
