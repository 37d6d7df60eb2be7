"""Server-sent events as the APIs write them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
PING = b'event: ping\ndata: {"type":"ping"}\n\n'


def events(objects: Iterable[dict[str, Any]]) -> bytes:
    """One ``data:`` event an object; JSON never contains a raw line break."""
    return b"".join(b"data: %b\n\n" % msgspec.json.encode(one) for one in objects)


def named_events(objects: Iterable[dict[str, Any]]) -> bytes:
    """As `events`, each named by its object's ``type``."""
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (one["type"].encode(), msgspec.json.encode(one))
        for one in objects
    )


@dataclass(frozen=True, slots=True)
class Wire:
    """How an API writes a stream: its events, its end, and its sign of life."""

    encode: Callable[[Iterable[dict[str, Any]]], bytes]
    end: bytes = b""
    keep_alive: bytes = KEEP_ALIVE


COMPLETIONS = Wire(events, end=DONE)
RESPONSES = Wire(named_events)
MESSAGES = Wire(named_events, keep_alive=PING)
