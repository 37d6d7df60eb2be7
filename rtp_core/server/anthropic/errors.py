"""Errors in the shape that Anthropic's clients know."""

from __future__ import annotations

from typing import Any

from rtp_core.errors import RequestError
from rtp_core.server.error_shape import ErrorShape
from rtp_core.server.errors import error_headers, error_object
from rtp_core.server.exchange import Reply

_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_OVERLOADS = frozenset({"queue_full", "body_memory", "overloaded"})


def failure(error: RequestError) -> dict[str, Any]:
    """``{"type": "error", "error": {type, message}}``, bounded like every error of the server."""
    status = _status(error)
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": _message(error)}}


def _reply(error: RequestError) -> Reply:
    return Reply.json(failure(error), _status(error), error_headers(error))


def _message(error: RequestError) -> str:
    """With the field's name in front, which has no other place; or as clients recognise it."""
    said = error_object(error)["error"]
    param, message = said["param"], said["message"]
    if error.code == "context_length_exceeded":
        return f"prompt is too long: {message}"
    return message if param is None or param in message else f"{param}: {message}"


def _status(error: RequestError) -> int:
    """529 when there is too much to do; 400 for media, which are worth no retry."""
    if error.code in _OVERLOADS:
        return 529
    return 400 if error.status == 501 else error.status


_SCHEMA = {
    "type": "object",
    "required": ["type", "error"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        },
    },
}
MESSAGES_SHAPE = ErrorShape("MessagesError", _SCHEMA, _reply)
