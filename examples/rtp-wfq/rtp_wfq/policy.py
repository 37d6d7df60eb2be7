"""Start-time fair queueing of tenants (Goyal, Vin and Cheng 1996), counted in tokens.

Each tenant has a virtual clock that advances by tokens / weight as the engine computes
tokens for it; the tenant with the earliest clock is admitted next. A tenant that comes back
from idleness starts at the present, so nobody saves up service, and nobody falls behind the
others by more than what runs at one time.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rtp_core.api import CachedTokens, QueuedRequest
from rtp_wfq.weights import Weights

Place = tuple[float, str]
"""Arrival time and id: the order within a tenant."""


@dataclass(slots=True)
class Tenant:
    """`clock` is its service in tokens / weight; `queue` what waits, oldest first."""

    weight: float
    clock: float
    queue: list[Place] = field(default_factory=list)


class FairPolicy:
    """See `rtp_core.api.SchedulingPolicy`.

    The scheduler need not say when an admitted sequence ends, so at most `max_admitted` are
    remembered; those that still run are used again and again and stay.
    """

    def __init__(self, weights: Weights, max_admitted: int) -> None:
        self._weights = weights
        self._max_admitted = max_admitted
        self._tenants: dict[str, Tenant] = {}
        self._waiting: dict[str, QueuedRequest] = {}
        self._admitted: OrderedDict[str, str] = OrderedDict()
        self._now = 0.0

    def add(self, request: QueuedRequest) -> None:
        """Join the tenant's queue by arrival; an idle tenant starts at the present."""
        if not self._waiting:
            self._tenants.clear()  # nobody competes: past service is not held against anyone
            self._now = 0.0
        self._admitted.pop(request.sequence_id, None)
        self._waiting[request.sequence_id] = request
        tenant = self._tenant(request.tenant)
        if not tenant.queue:
            tenant.clock = max(tenant.clock, self._now)
        insort(tenant.queue, (request.arrival_time_s, request.sequence_id))

    def remove(self, sequence_id: str) -> None:
        """Waiting: it was admitted (or aborted). Admitted: it ended."""
        request = self._waiting.pop(sequence_id, None)
        if request is None:
            self._admitted.pop(sequence_id, None)
            return
        self._tenants[request.tenant].queue.remove((request.arrival_time_s, sequence_id))
        self._admitted[sequence_id] = request.tenant
        if len(self._admitted) > self._max_admitted:
            self._admitted.popitem(last=False)

    def candidates(self, now_s: float, cached: CachedTokens) -> Iterable[str]:
        """Earliest clock first; each id offered counts as if it were admitted."""
        del now_s, cached
        self._advance()
        return self._merge()

    def on_scheduled(self, sequence_id: str, num_tokens: int) -> None:
        """Charge the tenant."""
        name = self._admitted.get(sequence_id)
        if name is not None:
            self._admitted.move_to_end(sequence_id)
            tenant = self._tenant(name)
            tenant.clock += num_tokens / tenant.weight

    def victim(self, running: Sequence[QueuedRequest]) -> str:
        """The youngest of the tenant that has had the most."""

        def rank(request: QueuedRequest) -> tuple[float, float, str]:
            clock = self._tenant(request.tenant).clock
            return clock, request.arrival_time_s, request.sequence_id

        return max(running, key=rank).sequence_id

    def _tenant(self, name: str) -> Tenant:
        if name not in self._tenants:
            self._tenants[name] = Tenant(self._weights(name), self._now)
        return self._tenants[name]

    def _advance(self) -> None:
        """The present is the earliest clock that waits; idle tenants behind it are forgotten."""
        clocks = [tenant.clock for tenant in self._tenants.values() if tenant.queue]
        self._now = max(self._now, min(clocks, default=self._now))
        self._tenants = {
            name: tenant
            for name, tenant in self._tenants.items()
            if tenant.queue or tenant.clock > self._now
        }

    def _merge(self) -> Iterator[str]:
        heap = [
            (tenant.clock, *tenant.queue[0], name, 0)
            for name, tenant in self._tenants.items()
            if tenant.queue
        ]
        heapq.heapify(heap)
        while heap:
            clock, _, sequence_id, name, place = heapq.heappop(heap)
            yield sequence_id
            tenant = self._tenants[name]
            request = self._waiting[sequence_id]
            if place + 1 < len(tenant.queue):
                cost = (request.num_tokens + request.max_new_tokens) / tenant.weight
                entry = (clock + cost, *tenant.queue[place + 1], name, place + 1)
                heapq.heappush(heap, entry)
