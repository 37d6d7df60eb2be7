"""Calls of tools as data: from what a model wrote to a name and arguments in JSON."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

MAX_NAME_CHARS = 256
_ALPHANUMERIC = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """`arguments` is the text of a JSON object."""

    name: str
    arguments: str


class NoCallError(ValueError):
    """The text is no call."""


def call_of(name: Any, arguments: Any) -> FunctionCall:
    """Check a call. Arguments may be a mapping, JSON in a string, or None. Raises NoCallError."""
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARS or not _encodable(name):
        raise NoCallError("no name")
    if isinstance(arguments, str):
        arguments = decoded(arguments)
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, Mapping):
        raise NoCallError("arguments are no object")
    return FunctionCall(name, encoded(arguments))


def calls_of(value: Any) -> list[FunctionCall]:
    """Calls of ``{"name", "arguments"}`` or of a list of them; Llama says ``parameters``."""
    entries = value if isinstance(value, list) else [value]
    if not entries or not all(isinstance(one, dict) for one in entries):
        raise NoCallError("no object")
    return [
        call_of(one.get("name"), one.get("arguments", one.get("parameters"))) for one in entries
    ]


def decoded(text: str) -> Any:
    """JSON as models write it: raw line ends in strings are let pass. Raises NoCallError."""
    try:
        return json.loads(text, strict=False, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise NoCallError("not JSON") from error


def encoded(value: Any) -> str:
    """The JSON that clients get. Raises NoCallError for infinities."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise NoCallError("not JSON") from error
    return text if _encodable(text) else json.dumps(value, allow_nan=False)


def new_call_id() -> str:
    """An id in OpenAI's form."""
    return f"call_{secrets.token_hex(12)}"


def new_short_id() -> str:
    """Nine letters and digits, as Mistral's templates demand."""
    return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(9))


def _encodable(text: str) -> bool:
    """False when it holds half of a surrogate pair, which no UTF-8 can carry."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_constant(name: str) -> NoReturn:
    raise NoCallError(f"{name} is not JSON")
