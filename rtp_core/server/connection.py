"""uvicorn's h11 connection with what it lacks: bounds on headers, one error shape, abort, and
no tolerance for requests whose end two readers could see in two places.

uvicorn answers malformed requests in plain text and waits for ever for headers; an ASGI
application cannot cut a connection whose client has stopped reading, and pays for each piece of
a body with a coroutine, two events and a state machine.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import h11
import msgspec
from uvicorn.protocols.http.h11_impl import H11Protocol

from rtp_core.errors import RequestError
from rtp_core.server.errors import error_object
from rtp_core.server.limits import Limits

LINGER_S = 1.0
"""After a refusal the client may still be sending; closing at once would reset it unread."""


def connection_class(limits: Limits) -> type[H11Protocol]:
    """The protocol class for uvicorn's `http` setting."""

    class Connection(_Connection):
        header_timeout_s = limits.header_timeout_s

    return Connection


class _Strict(h11.Connection):
    """RFC 9112, 6.1: a length beside a transfer coding, or a coding in HTTP/1.0, is how one
    request is smuggled inside another past a proxy."""

    def next_event(self) -> Any:
        """As h11; such a request is not one."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            names = {name for name, _ in event.headers}
            if b"transfer-encoding" in names and (
                b"content-length" in names or event.http_version < b"1.1"
            ):
                raise h11.RemoteProtocolError("ambiguous length of the body")
        return event


class _Connection(H11Protocol):
    header_timeout_s = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = _Strict(h11.SERVER, self.config.h11_max_incomplete_event_size or 2**16)
        self._header_timer: asyncio.TimerHandle | None = None
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Every scope gets the means to cut its connection."""
        super().connection_made(transport)
        self.app_state = {
            **self.app_state,
            "abort_connection": transport.abort,
            "body_channel": _BodyChannel(self),
        }
        self._watch_headers()

    def data_received(self, data: bytes) -> None:
        """As uvicorn; what follows a refusal is dropped."""
        if self._refused:
            return
        super().data_received(data)
        self._watch_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """As uvicorn."""
        self._stop_timer()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """431 for headers above the limit, 400 for anything that is not HTTP."""
        error = sys.exception()
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        text = "the headers are too large" if status == 431 else "this is not a valid HTTP request"
        self._refuse(status, text)

    def _watch_headers(self) -> None:
        """The timer runs from the first byte, or the connection, to the end of the headers."""
        waiting = not self._refused and self.conn.their_state is h11.IDLE
        if not waiting:
            self._stop_timer()
        elif self._header_timer is None:
            self._header_timer = self.loop.call_later(
                self.header_timeout_s, self._refuse, 408, "the headers did not arrive in time"
            )

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _refuse(self, status: int, text: str) -> None:
        self._refused = True
        self._stop_timer()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        body = msgspec.json.encode(error_object(RequestError(None, text, status=status)))
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        for event in (
            h11.Response(status_code=status, headers=headers),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)


class _BodyChannel:
    """Implements `exchange.Channel` for the answer that is being given on a connection.

    Headers went through h11, which also ends the body; pieces between need only the framing
    that h11 chose: chunks, or none where the client speaks HTTP/1.0.
    """

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    @property
    def full(self) -> bool:
        return self._connection.flow.write_paused

    def write(self, data: bytes) -> None:
        connection = self._connection
        if not data or connection.cycle.disconnected:
            return
        if connection.conn.their_http_version == b"1.1":
            data = b"%x\r\n%b\r\n" % (len(data), data)
        connection.transport.write(data)

    async def drain(self) -> None:
        await self._connection.flow.drain()
