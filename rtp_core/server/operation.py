"""What an operation of the API is: routes, endpoints and /openapi.json are made from these."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Set
from dataclasses import dataclass

from msgspec import Struct

from rtp_core.server.error_shape import ONE_SHAPE, ErrorShape
from rtp_core.server.exchange import Answer, Call
from rtp_core.server.schema.refused import IGNORED

Handler = Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One path and method. `body` set: JSON is read; `public`: no key is asked for.

    `operator`: it changes the server for everybody. `needs_model`: 503 until the model is ready
    and while the server drains. `errors` and `ignored` (fields without meaning here) differ
    where another API prescribes them. `query` names numbers that may be given in the address.
    """

    method: str
    path: str
    summary: str
    handler: Handler
    body: type[Struct] | None = None
    public: bool = False
    needs_model: bool = False
    streams: bool = False
    query: tuple[str, ...] = ()
    operator: bool = False
    media_type: str = "application/json"
    errors: ErrorShape = ONE_SHAPE
    ignored: Set[str] = IGNORED
