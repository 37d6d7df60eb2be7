"""Keeps an engine process alive: starts it, follows its life, starts the next one.

One thread does everything in sequence, so no event loop is needed and none can be slowed. It
also is the parent thread of the process, which the kernel ends with it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, replace

from rtp_core.config.schema import EngineConfig
from rtp_core.engine.channel import ParentChannel
from rtp_core.engine.child import Child
from rtp_core.engine.front import Front
from rtp_core.engine.life import End, EngineStatus, Life
from rtp_core.engine.wire import Submit, ToEngine, encode
from rtp_core.errors import CapacityError, EngineDeadError, RequestError, RtpError

log = logging.getLogger("rtp.engine")

RETRY = "retry in a few seconds"
_EXIT_PATIENCE_S = 2.0
"""For a process that said itself that it ends."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Limits of restarts and of silence.

    More than `max_restarts` deaths within `window_s` are final. A process that has work and
    says nothing for `hang_s`, not even to a ping at half of it, is killed; one step may take
    long, so the limit is generous.
    """

    max_restarts: int = 5
    window_s: float = 300.0
    first_delay_s: float = 0.2
    longest_delay_s: float = 10.0
    hang_s: float = 120.0


class RestartBudget:
    """Decides whether and when to start again."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._deaths_s: deque[float] = deque()

    def next_delay_s(self, now_s: float) -> float | None:
        """Called at a death: seconds to wait, doubling; None when it was one too many."""
        patience = self._patience
        while self._deaths_s and now_s - self._deaths_s[0] > patience.window_s:
            self._deaths_s.popleft()
        self._deaths_s.append(now_s)
        if len(self._deaths_s) > patience.max_restarts:
            return None
        doubled = patience.first_delay_s * 2.0 ** (len(self._deaths_s) - 1)
        return min(doubled, patience.longest_delay_s)


class Supervisor:
    """Owns the socket, the thread and one process after the other."""

    def __init__(self, config: EngineConfig, builder: str, patience: Patience) -> None:
        self.front = Front(self.post)
        self.status = EngineStatus()
        self.ended: Future[None] = Future()
        self.ended.set_running_or_notify_cancel()
        self._config = config
        self._builder = builder
        self._patience = patience
        self._budget = RestartBudget(patience)
        self._stop = threading.Event()
        self._channel: ParentChannel | None = None

    # ---- any thread

    @property
    def started(self) -> bool:
        """True from the first `start` on; `ended` will be done then."""
        return self._channel is not None

    def start(self) -> None:
        """Begin to load, once. Raises ConfigError when no socket can be made."""
        if self._channel is not None:
            return
        self._channel = ParentChannel()
        self.front.close("the engine is loading", RETRY)
        name = "rtp-supervisor"
        threading.Thread(target=self._run, args=(self._channel,), name=name, daemon=True).start()

    def stop(self) -> None:
        """End the process, politely if it serves and at once if it loads. Does not wait."""
        self._stop.set()
        if self._channel is not None:
            self._channel.wake()

    def post(self, message: ToEngine) -> None:
        """Send to the engine. Raises RequestError for a request too large to send."""
        if self._channel is None:
            raise EngineDeadError("the engine is not started")
        try:
            frame = encode(message)
        except CapacityError as error:
            if not isinstance(message, Submit):
                raise
            raise RequestError("prompt", error.message, status=413, remedy=error.remedy) from error
        self._channel.post(frame)

    # ---- the supervisor's thread

    def _run(self, channel: ParentChannel) -> None:
        try:
            while not self._stop.is_set():
                end = self._live(channel)
                delay_s = None if end is None else self._mourn(end)
                if delay_s is None:
                    break
                self._stop.wait(delay_s)
        finally:
            channel.close()
            self._finish()

    def _live(self, channel: ParentChannel) -> End | None:
        """One process from its start until it is reaped; None when it was told to stop."""
        try:
            child = Child(channel.endpoint, self._builder, channel.wake)
        except OSError as error:
            return End(f"the engine process cannot be started: {error}")
        self.status.starting(child.pid)
        log.info("engine_started pid=%d", child.pid)
        life = Life(channel, child, self.front, self.status, self._patience.hang_s)
        end: End | None = None
        try:
            end = life.follow(self._pinned(), self._stop)
            if end is None:
                life.dismiss(self._config.server.shutdown_timeout_s)
                self.status.lost()
            else:
                self.status.lost()  # before any reader hears of it
                self.front.close(f"the engine was lost: {end.reason}", RETRY)
        finally:
            child.end(_EXIT_PATIENCE_S if end is not None and end.leaving else 0.0)
            channel.forget()
        return end

    def _pinned(self) -> EngineConfig:
        """With the device of the first start: if a GPU is gone, serving without it many times
        slower helps nobody, and the error says so."""
        info, model = self.status.info, self._config.model
        if info is None or model.device != "auto":
            return self._config
        return replace(self._config, model=replace(model, device=info.device))

    def _mourn(self, end: End) -> float | None:
        """Seconds until the next start; None when there will be none."""
        log.error("engine_lost reason=%r", end.reason)
        if end.error is not None:
            self._give_up(end.error)
            return None
        delay_s = self._budget.next_delay_s(time.monotonic())
        if delay_s is None:
            within = f"{self._patience.max_restarts} restarts in {self._patience.window_s:g} s"
            remedy = "read the engine's log, then start the server again"
            self._give_up(EngineDeadError(f"{end.reason}, after {within}", remedy=remedy))
        return delay_s

    def _give_up(self, error: RtpError) -> None:
        self.front.close(error.message, error.remedy or "start the server again")
        self.status.give_up(error)

    def _finish(self) -> None:
        if not self._stop.is_set() and self.status.state != "broken":
            self._give_up(EngineDeadError("the engine's supervisor failed; its log says why"))
        elif self._stop.is_set():
            self.front.close("the engine is closed", "start the server again")
            if not self.status.loaded.done():
                self.status.loaded.set_exception(EngineDeadError("the engine was closed"))
        self.ended.set_result(None)
