"""Text of a server or a file that a terminal or a page may show."""

from __future__ import annotations

from typing import Any

_LONGEST = 300


def printable(value: Any) -> str:
    """`value` as text in which control and direction characters are written out; long text is cut.

    A server names its model: it must not move a terminal's cursor or turn words around.
    """
    text = str(value)
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in shown)
