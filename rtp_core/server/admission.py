"""Places in the queue: one a choice, held from before tokenization to the first token."""

from __future__ import annotations

from rtp_core.errors import RequestError
from rtp_core.server.errors import unavailable


class Admission:
    """At most `limit` choices may wait; more are refused with 503 and Retry-After."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0

    def enter(self, places: int) -> Ticket:
        """Places for all choices of a request. Raises 400 if it asks for more than there are."""
        if places > self._limit:
            raise RequestError(
                "n",
                f"prompts times n is {places}, but at most {self._limit} may wait",
                remedy="send fewer at a time, or raise server.max_queued_requests",
            )
        if self._taken + places > self._limit:
            raise unavailable("queue_full", "the queue is full")
        self._taken += places
        return Ticket(self, places)

    def leave(self, places: int) -> None:
        """Places are free again."""
        self._taken -= places


class Ticket:
    """The places of one request; each is given back once."""

    def __init__(self, admission: Admission, places: int) -> None:
        self._admission = admission
        self._held = places

    def give_back(self, places: int | None = None) -> None:
        """Some of the places, or all that are left; more than are left count as all."""
        count = self._held if places is None else min(places, self._held)
        self._held -= count
        self._admission.leave(count)
