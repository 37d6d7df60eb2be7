"""A queue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rtp_core.api import CachedTokens, QueuedRequest


class QueuePolicy:
    """`api.SchedulingPolicy` in order of arrival; `granted` sums the tokens a sequence got."""

    def __init__(self) -> None:
        self._waiting: dict[str, QueuedRequest] = {}
        self.granted: dict[str, int] = {}

    def add(self, request: QueuedRequest) -> None:
        """Begin to wait."""
        self._waiting[request.sequence_id] = request

    def remove(self, sequence_id: str) -> None:
        """Admitted or ended."""
        self._waiting.pop(sequence_id, None)

    def candidates(self, now_s: float, cached: CachedTokens) -> Iterable[str]:
        """Oldest first."""
        del now_s, cached
        return sorted(self._waiting, key=lambda one: (self._waiting[one].arrival_time_s, one))

    def on_scheduled(self, sequence_id: str, num_tokens: int) -> None:
        """Count."""
        self.granted[sequence_id] = self.granted.get(sequence_id, 0) + num_tokens

    def victim(self, running: Sequence[QueuedRequest]) -> str:
        """The youngest."""
        return max(running, key=lambda one: (one.arrival_time_s, one.sequence_id)).sequence_id
