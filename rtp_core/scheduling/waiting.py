"""Sequences without blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rtp_core.api import SchedulingPolicy
from rtp_core.scheduling.sequence import Sequence


class Waiting:
    """Queued in the policy's order, or held back until their conditions are met."""

    def __init__(self, policy: SchedulingPolicy) -> None:
        self._policy = policy
        self._queued: dict[str, Sequence] = {}
        self._held: dict[str, Sequence] = {}

    def __len__(self) -> int:
        return len(self._queued) + len(self._held)

    @property
    def num_queued(self) -> int:
        """Those that wait for nothing but room."""
        return len(self._queued)

    def add(self, sequence: Sequence) -> None:
        """Hold the sequence back if it waits for a condition, else queue it."""
        if sequence.waiting_for:
            self._held[sequence.sequence_id] = sequence
            return
        self._queued[sequence.sequence_id] = sequence
        self._policy.add(sequence.queued())

    def met(self, sequence: Sequence, condition: str) -> None:
        """A condition holds now; the last one queues the sequence."""
        if sequence.sequence_id in self._held:
            sequence.waiting_for.discard(condition)
            if not sequence.waiting_for:
                self.add(self._held.pop(sequence.sequence_id))

    def remove(self, sequence_id: str) -> None:
        """It was admitted or ended; unknown ids are ignored."""
        self._held.pop(sequence_id, None)
        if self._queued.pop(sequence_id, None) is not None:
            self._policy.remove(sequence_id)

    def in_order(self, now_s: float, cached: Callable[[Sequence], int]) -> Iterator[Sequence]:
        """Queued ones, best first; remove none while iterating."""

        def cached_by_id(sequence_id: str) -> int:
            return cached(self._queued[sequence_id])

        for sequence_id in self._policy.candidates(now_s, cached_by_id):
            yield self._queued[sequence_id]
