"""The asyncio side of the border: who reads what, and which question waits for which answer.

One front serves any number of event loops. `receive` runs in the thread that hears the engine
and wakes each loop at most once a message, and only when a reader waits there. One lock guards
the tables; nothing slow happens under it.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from rtp_core.api import Request, TokenEvent
from rtp_core.engine.contract import Topic
from rtp_core.engine.mailbox import Mailbox
from rtp_core.engine.wire import (
    Abort,
    Answer,
    AskExplain,
    AskReport,
    AskStats,
    Done,
    Events,
    Explained,
    Question,
    Refused,
    ResetCache,
    Stats,
    Submit,
    ToEngine,
    Unanswered,
    revive,
)
from rtp_core.errors import EngineDeadError, RequestError, RtpError
from rtp_core.observe.snapshot import EngineStats

STATS_PATIENCE_S = 0.5
"""How long `stats` waits for the end of a running step before it takes the last snapshot."""

Wakes = dict[asyncio.AbstractEventLoop, list["asyncio.Future[None]"]]


class Front:
    """Requests and questions of all callers. `post` puts a message into the engine's inbox.

    `post` must not block, is called in the caller's thread, and may raise for that caller. By
    then `busy` is true, so whoever is woken by it sees that something is expected.
    Closed until `open` is called; while closed every call is refused with the reason.
    """

    def __init__(self, post: Callable[[ToEngine], None]) -> None:
        self._post = post
        self._lock = threading.Lock()
        self._mailboxes: dict[str, Mailbox] = {}
        self._questions: dict[int, Future[Any]] = {}
        self._numbers = itertools.count(1)
        self._closed: tuple[str, str] | None = ("the engine is not started", "start it first")
        self._stats = EngineStats()

    @property
    def busy(self) -> bool:
        """True while something is expected of the engine."""
        return bool(self._mailboxes or self._questions)

    @property
    def refusal(self) -> str | None:
        """Why nothing is taken now; None while open."""
        return None if self._closed is None else self._closed[0]

    # ---- the callers' side

    async def generate(self, request: Request) -> AsyncGenerator[TokenEvent, None]:
        """Events of a request until every choice has ended; see AsyncBackend.generate."""
        mailbox = self._enter(request)
        try:
            while not mailbox.drained:
                event = self._next(mailbox)
                if isinstance(event, TokenEvent):
                    yield event
                else:
                    await event
        finally:
            self._leave(mailbox)

    def abort(self, request_id: str, choice: int | None) -> None:
        """Ask the engine to end a request or a choice; unknown ones are ignored."""
        with self._lock:
            if request_id in self._mailboxes:
                self._post(Abort(request_id, choice))

    async def stats(self) -> EngineStats:
        """The engine's counters now, or the last snapshot while it is busy or gone."""
        with suppress(TimeoutError, EngineDeadError):
            async with asyncio.timeout(STATS_PATIENCE_S):
                return await self._ask(AskStats)
        return self._stats

    async def explain(self) -> dict[str, Any]:
        """Effective features. Raises EngineDeadError when the engine is not there."""
        return await self._ask(AskExplain)

    async def report(self, topic: Topic) -> dict[str, Any]:
        """Numbers for routers. Raises EngineDeadError when the engine is not there."""
        return await self._ask(partial(AskReport, topic=topic))

    async def reset_prefix_cache(self) -> bool:
        """Forget idle cached blocks. Raises EngineDeadError when the engine is not there."""
        return await self._ask(ResetCache)

    # ---- the engine's side

    def open(self) -> None:
        """Take requests from now on."""
        with self._lock:
            self._closed = None

    def close(self, reason: str, remedy: str) -> None:
        """Refuse everything from now on; whatever is under way ends with EngineDeadError."""
        wakes: Wakes = {}
        with self._lock:
            self._closed = (reason, remedy)
            self._stats = replace(self._stats, num_running=0, num_waiting=0, kv_usage=0.0)
            for mailbox in self._mailboxes.values():
                mailbox.fail(EngineDeadError(reason, remedy=remedy))
                _collect(mailbox, wakes)
            questions = list(self._questions.values())
            self._mailboxes.clear()
            self._questions.clear()
        _wake(wakes)
        for question in questions:
            if question.set_running_or_notify_cancel():
                question.set_exception(EngineDeadError(reason, remedy=remedy))

    def receive(self, message: Events | Refused | Answer) -> None:
        """Hand a message of the engine to whom it concerns. Never blocks on a reader."""
        match message:
            case Events(events=events):
                self._deliver(events)
            case Refused(request_id=request_id, error=error):
                self._refuse(request_id, revive(error))
            case Stats(question=question, stats=stats):
                self._stats = stats
                self._answer(question, stats)
            case Explained(question=question, features=features):
                self._answer(question, features)
            case Done(question=question, done=done):
                self._answer(question, done)
            case Unanswered(question=question, error=error):
                self._answer(question, revive(error))

    def _enter(self, request: Request) -> Mailbox:
        mailbox = Mailbox(request, asyncio.get_running_loop())
        with self._lock:
            self._check_open()
            if request.request_id in self._mailboxes:
                raise RequestError("request_id", f"request {request.request_id!r} is under way")
            self._mailboxes[request.request_id] = mailbox
            try:
                self._post(Submit(request))
            except BaseException:
                del self._mailboxes[request.request_id]
                raise
        return mailbox

    def _next(self, mailbox: Mailbox) -> TokenEvent | asyncio.Future[None]:
        with self._lock:
            event = mailbox.take()
            return mailbox.wait() if event is None else event

    def _leave(self, mailbox: Mailbox) -> None:
        """The id stays taken until the engine has ended every choice."""
        with self._lock:
            mailbox.silence()
            if self._mailboxes.get(mailbox.request_id) is mailbox:
                self._post(Abort(mailbox.request_id))

    async def _ask(self, ask: Callable[[int], Question]) -> Any:
        answer: Future[Any] = Future()
        with self._lock:
            self._check_open()
            number = next(self._numbers)
            self._questions[number] = answer
            self._post(ask(number))
        try:
            return await asyncio.wrap_future(answer)
        finally:
            with self._lock:
                self._questions.pop(number, None)

    def _check_open(self) -> None:
        if self._closed is not None:
            reason, remedy = self._closed
            raise EngineDeadError(reason, remedy=remedy)

    def _deliver(self, events: Iterable[TokenEvent]) -> None:
        wakes: Wakes = {}
        with self._lock:
            for event in events:
                mailbox = self._mailboxes.get(event.request_id)
                if mailbox is not None:
                    self._put(mailbox, event)
                    _collect(mailbox, wakes)
        _wake(wakes)

    def _put(self, mailbox: Mailbox, event: TokenEvent) -> None:
        heard = not mailbox.deaf
        mailbox.put(event)
        if mailbox.ended:
            del self._mailboxes[mailbox.request_id]
        elif heard and mailbox.deaf:
            self._post(Abort(mailbox.request_id))

    def _refuse(self, request_id: str, error: RtpError) -> None:
        wakes: Wakes = {}
        with self._lock:
            mailbox = self._mailboxes.pop(request_id, None)
            if mailbox is not None:
                mailbox.fail(error)
                _collect(mailbox, wakes)
        _wake(wakes)

    def _answer(self, question: int, answer: Any) -> None:
        with self._lock:
            future = self._questions.pop(question, None)
        if future is None or not future.set_running_or_notify_cancel():
            return
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)


def _collect(mailbox: Mailbox, wakes: Wakes) -> None:
    waiter = mailbox.take_waiter()
    if waiter is not None:
        wakes.setdefault(mailbox.loop, []).append(waiter)


def _wake(wakes: Wakes) -> None:
    """Once a loop. A closed loop has no reader left; its requests are aborted on delivery."""
    for loop, waiters in wakes.items():
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_resolve, waiters)


def _resolve(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
