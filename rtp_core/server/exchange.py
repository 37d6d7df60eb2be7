"""One HTTP exchange: from an ASGI scope to a `Call`, from an answer to ASGI messages."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Scope, Send

from rtp_core.errors import RequestError
from rtp_core.server.errors import ClientGone
from rtp_core.server.limits import BodyLease

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


@dataclass(slots=True)
class Call:
    """What a handler may know of its request. `arrival_s` is on the monotonic clock.

    `booked` says that its end was logged with what it used.
    """

    request_id: str
    path: str
    headers: Mapping[str, str]
    path_params: Mapping[str, str]
    lease: BodyLease
    query: Mapping[str, str] = field(default_factory=dict)
    tenant: str = ""
    body: bytes = b""
    booked: bool = False
    arrival_s: float = field(default_factory=time.monotonic)

    def drop_body(self) -> None:
        """Forget the bytes once they are understood; their memory is free again."""
        self.body = b""
        self.lease.release()


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    body: bytes = b""
    status: int = 200
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
        """`value` as JSON."""
        return cls(msgspec.json.encode(value), status, headers=headers or {})


class Channel(Protocol):
    """The body of an answer that has begun. Writing never waits; whoever writes looks at `full`."""

    @property
    def full(self) -> bool:
        """True when `drain` is to be awaited before more is written."""
        ...

    def write(self, data: bytes) -> None:
        """Send bytes in order; an empty write is none."""
        ...

    async def drain(self) -> None:
        """Wait until the client has taken enough of it."""
        ...


@dataclass(frozen=True, slots=True)
class EventStream:
    """Server-sent events: `tell` writes them all; `close` is awaited however the exchange ends."""

    tell: Callable[[Channel], Awaitable[None]]
    close: Callable[[], Awaitable[None]]


Answer = Reply | EventStream


def open_call(scope: Scope, lease: BodyLease) -> Call:
    """The call of a scope that was routed."""
    headers = {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
    }
    return Call(
        request_id=request_id_of(headers),
        path=scope["route"].path,
        headers=headers,
        path_params=scope.get("path_params", {}),
        lease=lease,
        query=dict(parse_qsl(scope["query_string"].decode("latin-1"))),
    )


def check_headers(scope: Scope, limit: int) -> None:
    """Raises 431: a parser bounds only headers that arrive in several reads."""
    size = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    if size > limit:
        raise RequestError(None, f"the headers are larger than {limit} bytes", status=431)


def request_id_of(headers: Mapping[str, str]) -> str:
    """The client's ``x-request-id`` if it is acceptable, else a new one."""
    given = headers.get("x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


class Outgoing:
    """The sending side. A client that does not read for `timeout_s` loses its connection."""

    def __init__(self, send: Send, scope: Scope, request_id: str, timeout_s: float) -> None:
        state = scope.get("state", {})
        self._send = send
        self._abort: Callable[[], None] | None = state.get("abort_connection")
        self._direct: Channel | None = state.get("body_channel")
        self._request_id = request_id
        self._timeout_s = timeout_s
        self.started = False

    async def reply(self, reply: Reply, *, close: bool = False) -> None:
        """Send a whole answer; `close` announces the end of the connection."""
        headers = {
            **reply.headers,
            "content-type": reply.media_type,
            "content-length": str(len(reply.body)),
        }
        if close:
            headers["connection"] = "close"
        await self._start(reply.status, headers)
        await self._write({"type": "http.response.body", "body": reply.body})

    async def stream(self, tell: Callable[[Channel], Awaitable[None]]) -> None:
        """Send what `tell` writes, as it is written."""
        headers = {"content-type": "text/event-stream; charset=utf-8", **_STREAM_HEADERS}
        await self._start(200, headers)
        await tell(_Timed(self._direct or _Buffered(self._send), self))
        await self._write({"type": "http.response.body", "body": b""})

    async def abort(self) -> None:
        """Cut the connection: an answer that began cannot be completed."""
        if self._abort is not None:
            self._abort()
        await asyncio.sleep(0)

    async def in_time(self, waiting: Awaitable[None]) -> None:
        """Await what waits for the client. Raises ClientGone when it takes too long."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await waiting
        except (TimeoutError, OSError):
            await self.abort()
            raise ClientGone from None

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        self.started = True
        raw = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]
        raw.append((b"x-request-id", self._request_id.encode("ascii")))
        await self._write({"type": "http.response.start", "status": status, "headers": raw})

    async def _write(self, message: dict[str, Any]) -> None:
        await self.in_time(self._send(message))


class _Timed:
    """A channel whose `drain` does not wait for ever."""

    def __init__(self, channel: Channel, outgoing: Outgoing) -> None:
        self._channel = channel
        self._outgoing = outgoing
        self.write = channel.write  # once a token: no frame of ours in between

    @property
    def full(self) -> bool:
        return self._channel.full

    async def drain(self) -> None:
        await self._outgoing.in_time(self._channel.drain())


class _Buffered:
    """A channel over plain ASGI, for servers that lack a direct one: every write wants a drain."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._data = bytearray()

    @property
    def full(self) -> bool:
        return bool(self._data)

    def write(self, data: bytes) -> None:
        self._data += data

    async def drain(self) -> None:
        data, self._data = bytes(self._data), bytearray()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
