"""One line an event: ``name key=value …``, safe against values that carry line breaks."""

from __future__ import annotations

import json
import logging
import re
import time

_PLAIN = re.compile(r"[A-Za-z0-9._:/+@-]+")
_FIELD = re.compile(
    r"""\ ([a-z_0-9]+)=("(?:[^"\\]|\\.)*"(?=\ |$)|'(?:[^'\\]|\\.)*'(?=\ |$)|[^\s"']\S*|$|(?=\ ))"""
)


class JsonFormatter(logging.Formatter):
    """A JSON object a line: time, level, logger, event, and the event's fields as text."""

    def format(self, record: logging.LogRecord) -> str:
        """What is no ``name key=value …`` becomes the field `message`."""
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            **_parsed(record.getMessage()),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def use_format(form: str) -> None:
    """Write the process's log as ``text`` (as it is set up) or ``json``."""
    if form == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonFormatter())


def _parsed(message: str) -> dict[str, str]:
    event = message.partition(" ")[0]
    fields: dict[str, str] = {}
    at = len(event)
    while at < len(message):
        found = _FIELD.match(message, at)
        if found is None:
            return {"message": message}
        fields[f"field_{found[1]}" if found[1] in _RESERVED else found[1]] = _unquoted(found[2])
        at = found.end()
    return {"event": event, **fields}


_RESERVED = frozenset({"time", "level", "logger", "event", "message", "exception"})


def _unquoted(text: str) -> str:
    if text.startswith("'"):
        return text[1:-1]
    if text.startswith('"'):
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    return text


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
