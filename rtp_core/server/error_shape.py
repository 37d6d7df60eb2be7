"""How an API tells its errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rtp_core.errors import RequestError
from rtp_core.server.errors import ERROR_SCHEMA, error_headers, error_object
from rtp_core.server.exchange import Reply


@dataclass(frozen=True, slots=True)
class ErrorShape:
    """The name and schema of the JSON, and an error as an answer."""

    name: str
    schema: dict[str, Any]
    reply: Callable[[RequestError], Reply]


def _reply(error: RequestError) -> Reply:
    return Reply.json(error_object(error), error.status, error_headers(error))


ONE_SHAPE = ErrorShape("Error", ERROR_SCHEMA, _reply)
