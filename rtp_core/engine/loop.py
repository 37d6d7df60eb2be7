"""The step loop: drain the inbox, make a step, publish its events in one message.

Runs in the one thread that owns the engine, be it in the caller's process or in its own. With
nothing to do it sleeps on the inbox.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from rtp_core.api import Request
from rtp_core.engine.contract import Engine
from rtp_core.engine.wire import (
    Abort,
    AskExplain,
    AskReport,
    AskStats,
    Configure,
    Done,
    Events,
    Explained,
    Failed,
    FromEngine,
    Question,
    Refused,
    ResetCache,
    Shutdown,
    Stats,
    Submit,
    ToEngine,
    Unanswered,
    describe,
)
from rtp_core.errors import DeviceLostError, RequestError, RtpError

log = logging.getLogger("rtp.engine")

STATS_INTERVAL_S = 0.2
FAILED = "the engine failed in a step; its log says why"


class Inbox(Protocol):
    """Where the loop's orders come from."""

    def take(self, timeout_s: float | None) -> Iterable[ToEngine]:
        """All messages there are, waiting at most `timeout_s` for the first (None: for ever)."""
        ...


class EngineLoop:
    """Owns `engine` from here on and closes it. `publish` must not block for long."""

    def __init__(
        self,
        engine: Engine,
        inbox: Inbox,
        publish: Callable[[FromEngine], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._inbox = inbox
        self._publish = publish
        self._clock = clock
        self._stats_due_s: float | None = None
        self._next_stats_s = 0.0
        self._running = True

    def run(self) -> bool:
        """Until Shutdown (True) or an exception, which is logged and published (False)."""
        try:
            while self._running:
                self._turn()
        except DeviceLostError as error:  # as planned: the next process gets a working device
            log.exception("device_lost")
            self._publish(Failed(f"the engine ends itself: {error.message}"))
            return False
        except Exception:  # whatever it was, every reader must hear of it
            log.exception("engine_loop_failed")
            self._publish(Failed(FAILED))
            return False
        finally:
            self._engine.close()
        return True

    def _turn(self) -> None:
        for message in self._inbox.take(self._patience_s()):
            self._obey(message)
        if not self._running:
            return
        if self._engine.has_work:
            events = self._engine.step()
            if events:
                self._publish(Events(events))
            self._owe_stats()
        self._pay_stats()

    def _patience_s(self) -> float | None:
        if self._engine.has_work:
            return 0.0
        if self._stats_due_s is None:
            return None
        return max(0.0, self._stats_due_s - self._clock())

    # ---- orders

    def _obey(self, message: ToEngine) -> None:
        match message:
            case Submit(request=request):
                self._submit(request)
            case Abort(request_id=request_id, choice=choice):
                self._engine.abort(request_id, choice)
            case AskStats() | AskExplain() | AskReport() | ResetCache():
                self._answer(message)
            case Shutdown():
                self._running = False
            case Configure():
                raise RuntimeError("an engine is configured once")

    def _submit(self, request: Request) -> None:
        """A request never harms the engine, whatever happens while it is queued."""
        try:
            self._engine.submit(request)
        except RtpError as error:
            self._publish(Refused(request.request_id, describe(error)))
        except Exception:
            log.exception("submit_failed request=%r", request.request_id)
            self._engine.abort(request.request_id)
            error = RequestError(
                None, "the engine could not queue the request; its log says why", status=500
            )
            self._publish(Refused(request.request_id, describe(error)))
        else:
            self._owe_stats()

    def _answer(self, question: Question) -> None:
        try:
            self._publish(self._reply(question))
        except RtpError as error:
            self._publish(Unanswered(question.question, describe(error)))
        except Exception:
            log.exception("question_failed question=%s", type(question).__name__)
            error = RtpError("the engine could not answer; its log says why")
            self._publish(Unanswered(question.question, describe(error)))

    def _reply(self, question: Question) -> FromEngine:
        number = question.question
        match question:
            case AskStats():
                return Stats(number, self._engine.stats())
            case AskExplain():
                return Explained(number, self._engine.explain())
            case AskReport(topic=topic):
                return Explained(number, self._engine.report(topic))
            case ResetCache():
                return Done(number, self._engine.reset_prefix_cache())

    # ---- statistics

    def _owe_stats(self) -> None:
        """Something changed: a snapshot is due, but not sooner than the interval allows."""
        if self._stats_due_s is None:
            self._stats_due_s = max(self._clock(), self._next_stats_s)

    def _pay_stats(self) -> None:
        if self._stats_due_s is None or self._clock() < self._stats_due_s:
            return
        self._stats_due_s = None
        self._next_stats_s = self._clock() + STATS_INTERVAL_S
        self._publish(Stats(0, self._engine.stats()))
