"""The life of one engine process, as its supervisor sees it: greeting, loading, serving, end."""

from __future__ import annotations

import hmac
import logging
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass

import msgspec

from rtp_core.config.schema import EngineConfig
from rtp_core.engine.channel import ParentChannel, PeerLostError
from rtp_core.engine.child import Child
from rtp_core.engine.contract import ModelInfo
from rtp_core.engine.front import Front
from rtp_core.engine.wire import (
    AskStats,
    Configure,
    Done,
    Events,
    Explained,
    Failed,
    FromEngine,
    Hello,
    LoadFailed,
    Loading,
    Ready,
    Refused,
    Shutdown,
    Stats,
    Unanswered,
    decode_from_engine,
    encode,
    revive,
)
from rtp_core.errors import RtpError

log = logging.getLogger("rtp.engine")

MAX_HELLO_BYTES = 256
_LAST_WORDS_S = 0.05
"""How long the socket must be silent after a death before nothing more can come."""


class EngineStatus:
    """What is known of the engine. The supervisor's thread writes, any thread reads.

    `loaded` is done with the first engine that is ready, or with the error that prevents any.
    """

    def __init__(self) -> None:
        self.state = "loading"
        self.info: ModelInfo | None = None
        self.failure: str | None = None
        self.progress: tuple[int, int] | None = None
        self.pid: int | None = None
        self.loaded: Future[None] = Future()
        self.loaded.set_running_or_notify_cancel()  # who gives up waiting cancels only itself

    def starting(self, pid: int) -> None:
        """A process was started."""
        self.state, self.progress, self.pid = "loading", None, pid

    def ready(self, info: ModelInfo) -> None:
        """It takes requests."""
        self.info, self.state = info, "ready"
        if not self.loaded.done():
            self.loaded.set_result(None)

    def lost(self) -> None:
        """The process is over; another may follow."""
        self.state, self.pid = "loading", None

    def give_up(self, error: RtpError) -> None:
        """No other will follow."""
        self.state, self.failure = "broken", str(error)
        if not self.loaded.done():
            self.loaded.set_exception(error)


@dataclass(frozen=True, slots=True)
class End:
    """Why a process is over. With `error` set, another one would end alike.

    A process that is `leaving` said so itself and gets the time to write its log.
    """

    reason: str
    error: RtpError | None = None
    leaving: bool = False


class Life:
    """One process between its start and its end. Lives in the supervisor's thread."""

    def __init__(
        self,
        channel: ParentChannel,
        child: Child,
        front: Front,
        status: EngineStatus,
        hang_s: float,
    ) -> None:
        self._channel = channel
        self._child = child
        self._front = front
        self._status = status
        self._hang_s = hang_s
        self._silent_since_s: float | None = None
        self._pinged = False

    def follow(self, config: EngineConfig, stop: threading.Event) -> End | None:
        """Serve until the process is over, or until `stop` (None; it still runs then)."""
        while not stop.is_set():
            gone = self._child.gone
            try:
                frames = self._channel.wait(_LAST_WORDS_S if gone else self._patience_s())
            except PeerLostError as error:
                return End(error.message)
            for sender, frame in frames:
                if sender != self._channel.peer:
                    self._greet(sender, frame, config)
                elif (end := self._hear(frame)) is not None:
                    return end
            if gone and not frames:
                return End(f"the engine process {self._child.describe_exit()}")
            if self._hangs():
                return End(f"the engine process gave no sign of life for {self._hang_s:g} s")
        return None

    def dismiss(self, timeout_s: float) -> None:
        """Ask a serving process to end and wait for it; what it still says is dropped."""
        if self._status.state != "ready":
            return
        deadline_s = time.monotonic() + timeout_s
        self._channel.post(encode(Shutdown()))
        while not self._child.gone and (left_s := deadline_s - time.monotonic()) > 0:
            try:
                self._channel.wait(left_s)
            except PeerLostError:
                return

    def _greet(self, sender: bytes, frame: bytes, config: EngineConfig) -> None:
        """A peer is who shows the token; what anybody else says is dropped."""
        if self._channel.peer is not None or not _is_hello(frame, self._child.token):
            log.warning("stranger_ignored bytes=%d", len(frame))
            return
        self._channel.peer = sender
        self._channel.post(encode(Configure(config)))

    def _hear(self, frame: bytes) -> End | None:
        self._silent_since_s = None
        try:
            message = decode_from_engine(frame)
        except msgspec.DecodeError:
            log.exception("engine_unreadable bytes=%d", len(frame))
            return End("the engine process sent a message that cannot be read")
        return self._take(message)

    def _take(self, message: FromEngine) -> End | None:
        match message:
            case Events() | Refused() | Stats() | Explained() | Done() | Unanswered():
                self._front.receive(message)
            case Loading(done=done, total=total):
                self._status.progress = (done, total)
            case Ready(info=info):
                self._front.open()
                self._status.ready(info)
            case LoadFailed(error=info):
                error = revive(info)
                return End(str(error), error, leaving=True)
            case Failed(reason=reason):
                return End(reason, leaving=True)
            case Hello():
                return End("the engine process introduced itself twice")
        return None

    def _patience_s(self) -> float | None:
        return self._hang_s / 4 if self._front.busy else None

    def _hangs(self) -> bool:
        """Silence counts while something is expected; half-way the process is asked to speak."""
        now_s = time.monotonic()
        if not self._front.busy:
            self._silent_since_s = None
            return False
        if self._silent_since_s is None:
            self._silent_since_s, self._pinged = now_s, False
        silence_s = now_s - self._silent_since_s
        if silence_s > self._hang_s / 2 and not self._pinged:
            self._pinged = True
            self._channel.post(encode(AskStats(0)))
        return silence_s > self._hang_s


def _is_hello(frame: bytes, token: str) -> bool:
    if len(frame) > MAX_HELLO_BYTES:
        return False
    try:
        message = decode_from_engine(frame)
    except msgspec.DecodeError:
        return False
    return isinstance(message, Hello) and hmac.compare_digest(message.token, token)
