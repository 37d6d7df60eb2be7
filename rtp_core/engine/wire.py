"""What crosses the border between front and engine: plain messages, msgpack, never pickle.

The thread backend passes the same objects by reference; the process backend sends each as one
frame, an array ``[tag, field, …]`` whose dataclasses are maps. Floats are IEEE doubles, so NaN
and infinities survive. A frame above MAX_FRAME_BYTES is refused by whoever would send it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from rtp_core import errors
from rtp_core.api import Request, TokenEvent
from rtp_core.config.schema import EngineConfig
from rtp_core.engine.contract import ModelInfo, Topic
from rtp_core.errors import CapacityError, RtpError
from rtp_core.observe.snapshot import EngineStats

MAX_FRAME_BYTES = 32 * 2**20
"""A prompt of a million tokens takes 5 MiB; media never travels in these messages."""


class ErrorInfo(msgspec.Struct, frozen=True):
    """An RtpError by class name. `details` are its further attributes (param, status, …)."""

    kind: str
    message: str
    remedy: str | None = None
    details: dict[str, str | int | float | None] = {}


# ---- to the engine


class Configure(msgspec.Struct, frozen=True, array_like=True, tag="configure"):
    """First message to an engine process: build this."""

    config: EngineConfig


class Submit(msgspec.Struct, frozen=True, array_like=True, tag="submit"):
    """Queue a request; answered by Events or by Refused."""

    request: Request


class Abort(msgspec.Struct, frozen=True, array_like=True, tag="abort"):
    """End one choice of a request, or all; its last events follow."""

    request_id: str
    choice: int | None = None


class AskStats(msgspec.Struct, frozen=True, array_like=True, tag="ask_stats"):
    """Answered by Stats with this number; number 0 only asks for a sign of life."""

    question: int


class AskExplain(msgspec.Struct, frozen=True, array_like=True, tag="ask_explain"):
    """Answered by Explained."""

    question: int


class AskReport(msgspec.Struct, frozen=True, array_like=True, tag="ask_report"):
    """Answered by Explained."""

    question: int
    topic: Topic


class ResetCache(msgspec.Struct, frozen=True, array_like=True, tag="reset_cache"):
    """Forget idle cached blocks; answered by Done."""

    question: int


class Shutdown(msgspec.Struct, frozen=True, array_like=True, tag="shutdown"):
    """Stop after the running step; what is in flight ends without further events."""


# ---- from the engine


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    """First message of an engine process: the token it was given when it was started."""

    token: str


class Loading(msgspec.Struct, frozen=True, array_like=True, tag="loading"):
    """Bytes of weights placed, of bytes in all."""

    done: int
    total: int


class Ready(msgspec.Struct, frozen=True, array_like=True, tag="ready"):
    """The engine takes requests from now on."""

    info: ModelInfo


class LoadFailed(msgspec.Struct, frozen=True, array_like=True, tag="load_failed"):
    """The engine cannot be built from this configuration; another try would fail alike."""

    error: ErrorInfo


class Events(msgspec.Struct, frozen=True, array_like=True, tag="events"):
    """All events of one step."""

    events: tuple[TokenEvent, ...]


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """This request will not run; nothing of it remains in the engine."""

    request_id: str
    error: ErrorInfo


class Stats(msgspec.Struct, frozen=True, array_like=True, tag="stats"):
    """A snapshot; `question` is 0 when nobody asked. Also the loop's sign of life."""

    question: int
    stats: EngineStats


class Explained(msgspec.Struct, frozen=True, array_like=True, tag="explained"):
    """Answers AskExplain and AskReport; JSON-like data."""

    question: int
    features: dict[str, Any]


class Done(msgspec.Struct, frozen=True, array_like=True, tag="done"):
    """Answers ResetCache."""

    question: int
    done: bool


class Unanswered(msgspec.Struct, frozen=True, array_like=True, tag="unanswered"):
    """A question that raised."""

    question: int
    error: ErrorInfo


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="failed"):
    """The loop ended by an exception. `reason` is fit for clients; details are logged."""

    reason: str


Question = AskStats | AskExplain | AskReport | ResetCache
ToEngine = Configure | Submit | Abort | Question | Shutdown
Answer = Stats | Explained | Done | Unanswered
FromEngine = Hello | Loading | Ready | LoadFailed | Events | Refused | Answer | Failed

_encoder = msgspec.msgpack.Encoder()
_to_engine: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)
_from_engine: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)


def encode(message: ToEngine | FromEngine) -> bytes:
    """One frame. Raises CapacityError above the cap, TypeError for values without a form."""
    frame = _encoder.encode(message)
    if len(frame) > MAX_FRAME_BYTES:
        raise CapacityError(
            f"a {type(message).__name__} message of {len(frame)} bytes is above the limit of "
            f"{MAX_FRAME_BYTES}",
            remedy="send a shorter prompt",
        )
    return frame


def decode_to_engine(frame: bytes) -> ToEngine:
    """Raises msgspec.DecodeError; RequestError when sampling parameters break a bound."""
    return _to_engine.decode(frame)


def decode_from_engine(frame: bytes) -> FromEngine:
    """Raises msgspec.DecodeError."""
    return _from_engine.decode(frame)


def request_id_of(frame: bytes) -> str | None:
    """Whose Submit this is when `decode_to_engine` refused it; None if it is no Submit."""
    try:
        match msgspec.msgpack.decode(frame):
            case ["submit", {"request_id": str(request_id)}]:
                return request_id
    except msgspec.DecodeError:
        return None
    return None


def describe(error: RtpError) -> ErrorInfo:
    """An error for the wire; a class of a plugin travels as its nearest class of ours."""
    ours = (kind for kind in type(error).__mro__ if getattr(errors, kind.__name__, None) is kind)
    details = {
        name: value
        for name, value in vars(error).items()
        if name not in ("message", "remedy") and isinstance(value, str | int | float | None)
    }
    return ErrorInfo(next(ours).__name__, error.message, error.remedy, details)


def revive(info: ErrorInfo) -> RtpError:
    """The error of `describe`, with its class, text, remedy and attributes."""
    kind = getattr(errors, info.kind, None)
    if not (isinstance(kind, type) and issubclass(kind, RtpError)):
        kind = RtpError
    error = kind.__new__(kind)
    RtpError.__init__(error, info.message, remedy=info.remedy)
    vars(error).update(info.details)
    return error
