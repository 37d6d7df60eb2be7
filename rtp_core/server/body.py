"""From bytes to a typed body; every refusal names the field."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Set
from typing import Any, TypeVar

import msgspec

from rtp_core.errors import RequestError
from rtp_core.server.schema.refused import IGNORED, REFUSED

Body = TypeVar("Body", bound=msgspec.Struct)

MAX_VALUES = 2**21
"""A value of JSON costs a hundred bytes of memory and a microsecond in which nothing else
happens, whatever it says. Longer lists of token ids than this fit no context in use."""

_PLACE = re.compile(
    r" - at (?:`key` in )?`(?:key in )?\$(?P<path>[^`]*)`(?: in `\$(?P<outer>[^`]*)`)?\Z"
)
_FIELD = re.compile(r"(?:unknown|required) field `(?P<name>.*)`", re.DOTALL)


Reasons = Mapping[str, str]
"""Names of fields that are known but refused, and why."""


def parse(
    body: bytes, kind: type[Body], refused: Reasons = REFUSED, ignored: Set[str] = IGNORED
) -> Body:
    """The body as `kind`. Raises RequestError (400) for anything else than its fields.

    JSON as in RFC 8259: no NaN or Infinity, no lone surrogates. A field that is null counts
    as absent.
    """
    return typed(_object(body), kind, refused, ignored)


def typed(
    fields: Mapping[str, Any],
    kind: type[Body],
    refused: Reasons = REFUSED,
    ignored: Set[str] = IGNORED,
) -> Body:
    """As `parse`, for a body that is decoded already."""
    known = {name: fields[name] for name in _known_fields(fields, kind, refused, ignored)}
    try:
        return msgspec.convert(known, kind, strict=True)
    except msgspec.ValidationError as error:
        raise _refusal(str(error)) from None


def _num_values(body: bytes) -> int:
    """At least as many as there are; names and containers count twice, for what they cost."""
    return body.count(b",") + 2 * sum(map(body.count, (b":", b"[", b"{")))


def _object(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_VALUES and _num_values(body) > MAX_VALUES:
        raise RequestError(
            None, f"the body has more than {MAX_VALUES} values", status=413, code="too_many_values"
        )
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RequestError(
            None, "the body is not valid JSON in UTF-8", code="invalid_json"
        ) from None
    except RecursionError:
        raise RequestError(None, "the body is nested too deeply", code="invalid_json") from None
    if not isinstance(fields, dict):
        raise RequestError(None, "the body must be a JSON object")
    return fields


def _known_fields(
    fields: Mapping[str, Any], kind: type[msgspec.Struct], refused: Reasons, ignored: Set[str]
) -> list[str]:
    """Names to convert; ignored fields and nulls are dropped, others raise."""
    names = kind.__struct_fields__
    known: list[str] = []
    for name, value in fields.items():
        if name in names:
            if value is not None:
                known.append(name)
        elif name in refused:
            if value is not None:
                raise RequestError(name, f"{name}: {refused[name]}", code="unsupported_parameter")
        elif name not in ignored:
            raise unknown_field(name, names)
    return known


def unknown_field(name: str, known: tuple[str, ...]) -> RequestError:
    """A refusal that names the nearest known field."""
    near = difflib.get_close_matches(name[:64], known, n=1)
    hint = f"did you mean {near[0]}?" if near else "see /openapi.json for the fields"
    return RequestError(name, "unknown field", code="unknown_parameter", remedy=hint)


def _refusal(message: str) -> RequestError:
    """msgspec's message without the client's values; `param` is the path without ``$.``."""
    place = _PLACE.search(message)
    path = "" if place is None else place["outer"] or place["path"]
    text = message if place is None else message[: place.start()]
    field = _FIELD.search(text)
    if field is not None:
        path = f"{path}.{field['name']}"
        text = "unknown field" if "unknown" in text else "the field is required"
    elif text.startswith("Invalid"):
        text = "not one of the values allowed"
    param = path.replace("[...]", "").lstrip(".")
    if not param:
        return RequestError(None, text)
    return RequestError(param, f"{param}: {text}")
