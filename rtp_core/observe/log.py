"""One line an event: ``name key=value …``, safe against values that carry line breaks."""

from __future__ import annotations

import json
import re

_PLAIN = re.compile(r"[A-Za-z0-9._:/+@-]+")


def line(event: str, **fields: object) -> str:
    """`event` and its fields in order; None is left out, floats get three decimals.

    A string that is not one plain word is written as a JSON string, so a line break or a
    quote in a value can never start a second line or forge a field.
    """
    parts = [f"{key}={_value(value)}" for key, value in fields.items() if value is not None]
    return " ".join([event, *parts])


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
