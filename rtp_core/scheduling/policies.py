"""Built-in orders of waiting work."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence

from rtp_core.api import CachedTokens, QueuedRequest

Rank = tuple[int, float, str]


class ArrivalPolicy:
    """First come, first served; the youngest gives way."""

    def __init__(self) -> None:
        self._queue: list[Rank] = []
        self._ranks: dict[str, Rank] = {}

    def rank(self, request: QueuedRequest) -> Rank:
        """Smaller goes first."""
        return 0, request.arrival_time_s, request.sequence_id

    def add(self, request: QueuedRequest) -> None:
        """Insert by rank."""
        rank = self.rank(request)
        self._ranks[request.sequence_id] = rank
        insort(self._queue, rank)

    def remove(self, sequence_id: str) -> None:
        """Admitted or ended."""
        rank = self._ranks.pop(sequence_id, None)
        if rank is not None:
            del self._queue[bisect_left(self._queue, rank)]

    def candidates(self, now_s: float, cached: CachedTokens) -> Iterable[str]:
        """In rank order."""
        del now_s, cached
        return (rank[2] for rank in self._queue)

    def on_scheduled(self, sequence_id: str, num_tokens: int) -> None:
        """Arrival order needs no accounting."""

    def victim(self, running: Sequence[QueuedRequest]) -> str:
        """The one that would be admitted last."""
        return max(running, key=self.rank).sequence_id


class PriorityPolicy(ArrivalPolicy):
    """Lower `priority` first, then arrival; the least urgent gives way."""

    def rank(self, request: QueuedRequest) -> Rank:
        """Priority before arrival."""
        return request.priority, request.arrival_time_s, request.sequence_id


class PrefixPolicy(ArrivalPolicy):
    """Longest cached prefix first, so that a prefix is used while it is there.

    Who waited `MAX_WAIT_S` goes first by arrival; beyond `MAX_SORTED` waiting requests
    looking up every prefix costs more than it gains, and arrival order holds.
    """

    MAX_WAIT_S = 2.0
    MAX_SORTED = 128

    def candidates(self, now_s: float, cached: CachedTokens) -> Iterable[str]:
        """Aged ones, then by cached tokens."""
        if len(self._queue) > self.MAX_SORTED:
            return super().candidates(now_s, cached)

        def order(rank: Rank) -> tuple[bool, int, Rank]:
            aged = now_s - rank[1] >= self.MAX_WAIT_S
            return not aged, 0 if aged else -cached(rank[2]), rank

        return (rank[2] for rank in sorted(self._queue, key=order))
