"""A streaming client of one request: when each piece came, how it ended."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec

from rtp_core.bench.http_stream import AnswerReader, EventReader, ProtocolError
from rtp_core.errors import ConfigError, RtpError

_READ_BYTES = 256 * 1024
_DONE = b"[DONE]"


@dataclass(frozen=True, slots=True)
class Target:
    """A server; `prefix` comes before every path. Connections are not reused."""

    host: str
    port: int
    prefix: str = ""
    tls: bool = False
    api_key: str | None = None

    @classmethod
    def of(cls, url: str, api_key: str | None = None) -> Target:
        """Raises ConfigError for what is no http or https address."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError("--url", f"{url!r} is no address", remedy="write http://HOST:PORT")
        prefix = parts.path.rstrip("/").removesuffix("/v1")
        tls = parts.scheme == "https"
        return cls(parts.hostname, port or (443 if tls else 80), prefix, tls, api_key)

    def head(self, method: str, path: str, length: int) -> bytes:
        """The request's head."""
        lines = [
            f"{method} {self.prefix}{path} HTTP/1.1",
            f"Host: {f'[{self.host}]' if ':' in self.host else self.host}:{self.port}",
            "Content-Type: application/json",
            f"Content-Length: {length}",
            "Connection: close",
        ]
        if self.api_key is not None:
            lines.append(f"Authorization: Bearer {self.api_key}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


@dataclass(slots=True)
class Record:
    """One request. Times are seconds of one monotonic clock.

    `due_s`: when it was to be sent; `pieces_s`: when content came; tokens are the server's own
    count (`usage`). `error` is a kind, short and with few values; None while it runs or if all
    went well, which `done` tells apart.
    """

    due_s: float
    asked_tokens: int
    sent_s: float = 0.0
    pieces_s: list[float] = field(default_factory=list)
    end_s: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    error: str | None = None
    done: bool = False


_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class _Details(msgspec.Struct):
    cached_tokens: _Count | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: _Count = 0
    completion_tokens: _Count = 0
    prompt_tokens_details: _Details | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


async def stream(
    target: Target, path: str, body: bytes, record: Record, timeout_s: float | None
) -> None:
    """Send one streaming request and follow it into `record`, errors included."""
    record.sent_s = time.perf_counter()
    try:
        async with asyncio.timeout(timeout_s):
            await _follow(target, path, body, record)
    except TimeoutError:
        record.error = "timeout"
    except ConnectionRefusedError:
        record.error = "connection refused"
    except OSError:
        record.error = "connection lost"
    except (ProtocolError, msgspec.DecodeError):
        record.error = "broken answer"
    finally:
        record.end_s = time.perf_counter()
    record.done = record.error is None


async def fetch(target: Target, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and decoded JSON (None if it is none) of a whole answer.

    Raises RtpError when the server cannot be reached.
    """
    content = b"" if body is None else msgspec.json.encode(body)
    answer, parts = AnswerReader(), []
    try:
        reader, writer = await _connect(target)
        try:
            writer.write(target.head(method, path, len(content)) + content)
            while not answer.complete:
                data = await reader.read(_READ_BYTES)
                parts.append(answer.feed(data))
                if not data:
                    answer.end()
        finally:
            writer.close()
    except (OSError, ProtocolError) as error:
        raise RtpError(
            f"{target.host}:{target.port} does not answer: {error}",
            remedy="check --url and that the server runs",
        ) from error
    try:
        decoded = json.loads(b"".join(parts))
    except ValueError:
        decoded = None
    return answer.status or 0, decoded


async def _connect(target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = ssl.create_default_context() if target.tls else None
    return await asyncio.open_connection(
        target.host, target.port, ssl=context, limit=2 * _READ_BYTES
    )


async def _follow(target: Target, path: str, body: bytes, record: Record) -> None:
    reader, writer = await _connect(target)
    answer, events = AnswerReader(), EventReader()
    finished = False
    try:
        writer.write(target.head("POST", path, len(body)) + body)
        while not answer.complete:
            data = await reader.read(_READ_BYTES)
            now = time.perf_counter()
            content = answer.feed(data)
            if answer.status not in (None, 200):
                record.error = f"http {answer.status}"
                return
            for payload in events.feed(content):
                finished = finished or payload == _DONE
                if payload != _DONE:
                    _take(record, _decode(payload), now)
            if not data:
                answer.end()
    finally:
        writer.close()
    if not finished and record.error is None:
        record.error = "broken answer"


def _take(record: Record, chunk: _Chunk, now: float) -> None:
    if chunk.error is not None:
        record.error = "error in the stream"
    for choice in chunk.choices:
        delta = choice.delta
        text = choice.text
        if delta is not None:
            text = delta.content or delta.reasoning or delta.reasoning_content
        if text:
            record.pieces_s.append(now)
    usage = chunk.usage
    if usage is not None:
        record.prompt_tokens = usage.prompt_tokens
        record.output_tokens = usage.completion_tokens
        details = usage.prompt_tokens_details
        record.cached_tokens = (details and details.cached_tokens) or 0
