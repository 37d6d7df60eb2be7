"""Server-sent events as the OpenAI API writes them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"


def events(objects: Iterable[dict[str, Any]]) -> bytes:
    """One ``data:`` event an object; JSON never contains a raw line break."""
    return b"".join(b"data: %b\n\n" % msgspec.json.encode(one) for one in objects)
