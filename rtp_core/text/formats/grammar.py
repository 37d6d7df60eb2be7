"""Grammars that leave a model nothing but to call a tool, in Lark as llguidance reads it.

Objects that declare their properties are closed: a weak model otherwise adds keys without end.
White space is that of Python's ``json.dumps``, which the models were trained on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rtp_core.api import Tool, ToolRules

MAX_CALLS = 16
"""Calls that one forced answer may make; without a bound a weak model never stops."""
_FORM = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_DEFINITIONS = ("$defs", "definitions")
_COMBINED = ("allOf", "anyOf", "oneOf", "if", "$ref", "patternProperties", "unevaluatedProperties")

Spell = Callable[[str], str]


def grammar(
    rules: ToolRules,
    call: Callable[[Tool, str], Sequence[str]],
    *,
    before: Sequence[str] = (),
    between: Sequence[str] = (),
    after: Sequence[str] = (),
) -> str:
    """One rule a tool between the same words.

    `call(tool, name)` gives the lines of a rule `name` and of those it uses; `before`,
    `between` and `after` are atoms around calls.
    """
    names = [f"call_{number}" for number in range(len(rules.tools))]
    more = f" ({' '.join([*between, 'call'])}){{0,{MAX_CALLS - 1}}}" if rules.parallel else ""
    lines = [
        f"start: {' '.join([*before, 'call'])}{more} {' '.join(after)}".rstrip(),
        f"call: {' | '.join(names)}",
    ]
    for tool, name in zip(rules.tools, names, strict=True):
        lines.extend(call(tool, name))
    return "\n".join(lines)


def text(value: str) -> str:
    """An atom for exactly this text."""
    return json.dumps(value, ensure_ascii=False)


def json_value(schema: Mapping[str, Any]) -> str:
    """An atom for a value that the schema accepts."""
    return f"%json {json.dumps({**schema, 'x-guidance': _FORM}, ensure_ascii=False)}"


def call_object(tool: Tool, *, name: str = "name", arguments: str) -> str:
    """An atom for ``{"name": NAME, "arguments": {…}}`` under these keys."""
    schema, definitions = arguments_schema(tool)
    return json_value(
        {
            "type": "object",
            "properties": {name: {"const": tool.name}, arguments: schema},
            "required": [name, arguments],
            "additionalProperties": False,
            **definitions,
        }
    )


def arguments_schema(tool: Tool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The closed schema of a tool's arguments, and its definitions, which belong at the root."""
    given = {"properties": {}} if tool.parameters is None else tool.parameters
    schema = {**closed(given), "type": "object"}
    return schema, {word: schema.pop(word) for word in _DEFINITIONS if word in schema}


def closed(schema: Any) -> Any:
    """The schema with every object that declares properties closed to others.

    Left open are those that say otherwise, and those made of several schemas, each of which
    would shut out what the others declare.
    """
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    made = {word: _closed_under(word, value) for word, value in schema.items()}
    if "properties" in made and not any(word in made for word in _COMBINED):
        made.setdefault("additionalProperties", False)
    return made


def _closed_under(word: str, value: Any) -> Any:
    """Names of properties and definitions are no words of a schema; constants are no schemas."""
    if word in ("properties", *_DEFINITIONS) and isinstance(value, Mapping):
        return {name: closed(one) for name, one in value.items()}
    if word in ("const", "enum", "default", "examples", "allOf", "if"):
        return value
    return closed(value)
