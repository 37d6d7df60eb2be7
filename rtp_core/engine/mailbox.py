"""Events of one request on their way from the engine's thread to one reader.

A reader that keeps up gets every event as it was made. For a slow one events of a choice are
merged when it reads next. What is unread is bounded: beyond MAX_UNREAD_BYTES the reader gets an
error in place of the backlog. The owner's lock guards every method.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import chain

from rtp_core.api import Request, TokenEvent
from rtp_core.errors import CapacityError, RtpError

MAX_UNREAD_BYTES = 4 * 2**20
_EVENT_BYTES = 200
_TOKEN_BYTES = 40
_LOGPROB_BYTES = 160
"""Rough sizes of the Python objects; they only have to bound memory."""


class Mailbox:
    """Between one engine thread and one coroutine of `loop`."""

    def __init__(self, request: Request, loop: asyncio.AbstractEventLoop) -> None:
        self.request_id = request.request_id
        self.loop = loop
        self._running = set(range(request.sampling.n))
        self._unread: dict[int, list[TokenEvent]] = {}
        self._unread_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._failure: RtpError | None = None
        self._deaf = False

    @property
    def ended(self) -> bool:
        """True when the engine has ended every choice."""
        return not self._running

    @property
    def drained(self) -> bool:
        """True when the reader has everything that will ever come."""
        return not self._running and not self._unread and self._failure is None

    @property
    def deaf(self) -> bool:
        """True when nothing is kept any more; only ends are still followed."""
        return self._deaf

    def put(self, event: TokenEvent) -> None:
        """Keep an event for the reader, if its loop still lives."""
        if self.loop.is_closed():
            self.silence()
        if event.finish_reason is not None:
            self._running.discard(event.choice)
        if self._deaf:
            return
        self._unread.setdefault(event.choice, []).append(event)
        self._unread_bytes += _size(event)
        if self._unread_bytes > MAX_UNREAD_BYTES:
            self.fail(
                CapacityError(
                    f"request {self.request_id} was ended: its reader left "
                    f"{MAX_UNREAD_BYTES // 2**20} MiB of output unread",
                    remedy="read faster or ask for fewer log-probabilities",
                )
            )
            self._unread.clear()

    def fail(self, error: RtpError) -> None:
        """The reader gets what is unread, then this error; later events are not kept."""
        self._failure = error
        self.silence()

    def silence(self) -> None:
        """Keep no further events."""
        self._deaf = True

    def take(self) -> TokenEvent | None:
        """The unread events of one choice as one, or None. Raises the failure, if any."""
        if self._unread:
            choice = next(iter(self._unread))
            events = self._unread.pop(choice)
            self._unread_bytes -= sum(map(_size, events))
            return events[0] if len(events) == 1 else merge(events)
        if self._failure is not None:
            raise self._failure
        return None

    def wait(self) -> asyncio.Future[None]:
        """Done when there is something to take. Called in `loop`."""
        self._waiter = self.loop.create_future()
        return self._waiter

    def take_waiter(self) -> asyncio.Future[None] | None:
        """The future to wake, once."""
        waiter, self._waiter = self._waiter, None
        return waiter


def merge(events: list[TokenEvent]) -> TokenEvent:
    """Consecutive events of one choice as one; what is said last holds."""
    logprobs = [event.logprobs for event in events if event.logprobs is not None]
    return replace(
        events[-1],
        token_ids=tuple(chain.from_iterable(event.token_ids for event in events)),
        logprobs=tuple(chain.from_iterable(logprobs)) if logprobs else None,
        prompt_logprobs=tuple(chain.from_iterable(event.prompt_logprobs for event in events)),
    )


def _size(event: TokenEvent) -> int:
    size = _EVENT_BYTES + _TOKEN_BYTES * len(event.token_ids)
    if event.logprobs is None and not event.prompt_logprobs:
        return size
    entries = (*(event.logprobs or ()), *event.prompt_logprobs)
    return size + _LOGPROB_BYTES * sum(1 + len(entry.top) for entry in entries)
