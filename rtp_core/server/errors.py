"""One error shape for every status: ``{"error": {message, type, param, code}}``.

Bodies stay below 8 KB and never repeat what the client sent beyond a field's name, cut to
64 printable characters; paths, addresses and stack traces go to the log only.
"""

from __future__ import annotations

import logging
from typing import Any

from rtp_core.errors import CapacityError, EngineDeadError, RequestError, RtpError

log = logging.getLogger("rtp.server")

MAX_MESSAGE_CHARS = 2000
MAX_NAME_CHARS = 64
CLIENT_CLOSED = 499
"""Logged when the client left before its answer; never sent."""

_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    501: "unsupported_modality",
    503: "service_unavailable",
    504: "timeout_error",
}
ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_RETRY_AFTER_S = {"queue_full": 1, "body_memory": 1, "model_loading": 5, "server_draining": 5}
_LONG_RETRY_S = 30


class ClientGone(Exception):
    """The client closed its connection or stopped reading; there is nobody to tell."""


class ShutdownError(RequestError):
    """The server stops, or was told to drain; requests in flight end with this when it stops."""

    def __init__(self) -> None:
        message = "the server takes no new requests"
        super().__init__(None, message, status=503, code="server_draining")


def unavailable(code: str, message: str) -> RequestError:
    """A 503 with Retry-After. `code` says why: see `_RETRY_AFTER_S`."""
    return RequestError(None, message, status=503, code=code)


def internal_error() -> RequestError:
    """A failure that is ours; the caller has logged it."""
    return RequestError(None, "internal error; see the server log", status=500)


def as_request_error(error: RtpError) -> RequestError:
    """What the client may know of a failure raised on purpose; the rest is logged here."""
    if isinstance(error, RequestError):
        return error
    log.error("request_failed kind=%s error=%r", type(error).__name__, str(error))
    if isinstance(error, EngineDeadError):
        return unavailable("engine_dead", "the engine has stopped")
    if isinstance(error, CapacityError):
        return unavailable("overloaded", "the server is short of memory for this request")
    return internal_error()


def error_object(error: RequestError) -> dict[str, Any]:
    """The JSON body of an error answer or event."""
    param = None if error.param is None else printable(error.param)
    body = {
        "message": printable(str(error), MAX_MESSAGE_CHARS),
        "type": _KINDS.get(error.status, "invalid_request_error"),
        "param": param,
        "code": error.code,
    }
    return {"error": body}


def error_headers(error: RequestError) -> dict[str, str]:
    """Retry-After for 429 and 503, WWW-Authenticate for 401."""
    if error.status in (429, 503):
        usual = _RETRY_AFTER_S.get(error.code or "", _LONG_RETRY_S)
        return {"retry-after": str(error.retry_after_s or usual)}
    if error.status == 401:
        return {"www-authenticate": "Bearer"}
    return {}


def printable(text: str, limit: int = MAX_NAME_CHARS) -> str:
    """`text` cut to `limit` characters, without control characters or surrogates."""
    return "".join(char if char.isprintable() else "?" for char in text[:limit])
