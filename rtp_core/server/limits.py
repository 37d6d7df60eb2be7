"""Bounds on what a connection may hold or wait for, and the reader that keeps them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.types import Message, Receive

from rtp_core.errors import RequestError
from rtp_core.server.errors import ClientGone, unavailable


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds, sizes in bytes. Everything a client can make grow has a bound here."""

    header_bytes: int = 64 * 2**10
    header_timeout_s: float = 15.0
    body_timeout_s: float = 30.0
    discard_bytes: int = 256 * 2**20
    discard_timeout_s: float = 10.0
    buffered_bodies: int = 8
    write_timeout_s: float = 60.0
    refusal_grace_s: float = 1.0
    text_threads: int = 2


class BodyMemory:
    """Bytes that all bodies under way may hold together."""

    def __init__(self, num_bytes: int) -> None:
        self._free = num_bytes

    def try_take(self, num_bytes: int) -> bool:
        """False when the bytes are not free."""
        if num_bytes > self._free:
            return False
        self._free -= num_bytes
        return True

    def give_back(self, num_bytes: int) -> None:
        """The bytes are free again."""
        self._free += num_bytes


class BodyLease:
    """What one request holds of `BodyMemory`."""

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self.held = 0

    def take(self, num_bytes: int) -> None:
        """Raises a 503 when all bodies together would hold too much."""
        if not self._memory.try_take(num_bytes):
            raise unavailable("body_memory", "too many large bodies are being read")
        self.held += num_bytes

    def release(self) -> None:
        """Give all of it back; idempotent."""
        self._memory.give_back(self.held)
        self.held = 0


class Incoming:
    """The body of one request, read at most once, and whether all of it has arrived."""

    def __init__(self, receive: Receive, headers: dict[str, str]) -> None:
        self._receive = receive
        self._length = _declared_length(headers)
        self._expects_continue = headers.get("expect", "").lower() == "100-continue"
        self._begun = False
        self.complete = self._length == 0 and "transfer-encoding" not in headers

    async def read(self, limit: int, timeout_s: float, lease: BodyLease) -> bytes:
        """The whole body. Raises 413 above `limit` bytes, 408 after `timeout_s`, ClientGone."""
        if self._length > limit:
            raise _too_large(limit)
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(timeout_s):
                while not self.complete:
                    parts.append(await self._part())
                    lease.take(len(parts[-1]))
                    if lease.held > limit:
                        raise _too_large(limit)
        except TimeoutError:
            raise RequestError(
                None, f"the body did not arrive within {timeout_s:g} s", status=408
            ) from None
        return b"".join(parts)

    async def discard(self, limit: int, timeout_s: float) -> bool:
        """Read the rest into nothing, so that the client gets to read a refusal.

        A client that still waits for ``100 Continue`` sends no body: nothing is read then.
        Returns False when bytes may remain and the connection must close.
        """
        if self.complete or (self._expects_continue and not self._begun):
            return self.complete
        seen = 0
        try:
            async with asyncio.timeout(timeout_s):
                while not self.complete and seen <= limit:
                    seen += len(await self._part())
        except TimeoutError:
            return False
        return self.complete

    async def gone(self) -> None:
        """Return when the client has closed the connection; call once the body is complete."""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return

    async def _part(self) -> bytes:
        self._begun = True
        message: Message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        self.complete = not message.get("more_body", False)
        return message.get("body", b"")


def _declared_length(headers: dict[str, str]) -> int:
    text = headers.get("content-length", "0")
    return int(text) if text.isdecimal() and len(text) < 20 else 0


def _too_large(limit: int) -> RequestError:
    return RequestError(
        None,
        f"the body is larger than {limit} bytes",
        status=413,
        remedy="send less, or raise server.max_body_bytes",
    )
