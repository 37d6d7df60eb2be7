"""Qwen3-Coder: a call as nested tags, arguments as text whose type the tool's schema tells.

``<tool_call>``, ``<function=NAME>``, for each argument ``<parameter=NAME>`` VALUE
``</parameter>``, ``</function>``, ``</tool_call>``; from the model's public chat template.
The outer pair may be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rtp_core.api import Tool
from rtp_core.text.formats.calls import (
    MAX_NAME_CHARS,
    FunctionCall,
    NoCallError,
    call_of,
    decoded,
)
from rtp_core.text.formats.json_span import Literal, Step

OPEN, CLOSE = "<tool_call>", "</tool_call>"
FUNCTION, FUNCTION_END = "<function=", "</function>"
PARAMETER, PARAMETER_END = "<parameter=", "</parameter>"
_JSON_TYPES = frozenset({"integer", "number", "boolean", "object", "array", "null"})


class XmlBody:
    """The text of one call from behind ``<function=`` on."""

    def __init__(self, tools: Mapping[str, Tool]) -> None:
        self._tools = tools
        self._names: list[str] = []
        self._values: list[str] = []
        self._chars: list[str] = []
        self._close = Literal(CLOSE)
        self._whole = False
        self._part: Callable[[str], Step] = self._in_name

    @property
    def leftover(self) -> str:
        """As Body."""
        return self._close.taken

    def take(self, char: str) -> Step:
        """As Body."""
        return self._part(char)

    def calls(self) -> Sequence[FunctionCall]:
        """As Body."""
        if not self._whole:
            raise NoCallError("the function is not closed")
        name, *keys = self._names
        tool = self._tools.get(name)
        schema = {} if tool is None or tool.parameters is None else tool.parameters
        properties = schema.get("properties")
        kinds = properties if isinstance(properties, Mapping) else {}
        arguments = {
            key: typed_value(value, kinds.get(key))
            for key, value in zip(keys, self._values, strict=True)
        }
        return [call_of(name, arguments)]

    def _in_name(self, char: str) -> Step:
        if char == ">":
            self._names.append("".join(self._chars).strip())
            self._part = self._between if len(self._names) == 1 else self._in_value
            self._chars = []
            return Step.MORE
        self._chars.append(char)
        return Step.MORE if len(self._chars) <= MAX_NAME_CHARS else Step.BROKEN

    def _between(self, char: str) -> Step:
        """Before a parameter, or before the end of the function."""
        if char.isspace() and not self._chars:
            return Step.MORE
        self._chars.append(char)
        tag = "".join(self._chars)
        if tag == PARAMETER:
            self._part, self._chars = self._in_name, []
        elif tag == FUNCTION_END:
            self._part, self._whole = self._in_close, True
        elif not (PARAMETER.startswith(tag) or FUNCTION_END.startswith(tag)):
            return Step.BROKEN
        return Step.MORE

    def _in_value(self, char: str) -> Step:
        self._chars.append(char)
        if char == ">" and "".join(self._chars[-len(PARAMETER_END) :]) == PARAMETER_END:
            text = "".join(self._chars[: -len(PARAMETER_END)])
            self._values.append(text.removeprefix("\n").removesuffix("\n"))
            self._part, self._chars = self._between, []
        return Step.MORE

    def _in_close(self, char: str) -> Step:
        if char.isspace() and not self._close.taken:
            return Step.MORE
        step = self._close.take(char)
        return Step.OVER if step is Step.BROKEN else step


def typed_value(text: str, schema: Any) -> Any:
    """An argument's text as the schema's type; as a string if it is none of that type."""
    kinds = _kinds(schema)
    if is_string(schema) and not ("null" in kinds and text.strip() == "null"):
        return text
    try:
        return decoded(_as_json(text.strip()))
    except NoCallError:
        return text


def is_string(schema: Any) -> bool:
    """True for arguments that are written as they are: strings, and what has no type."""
    kinds = _kinds(schema)
    return "string" in kinds or not kinds & _JSON_TYPES


def _as_json(text: str) -> str:
    """Python's spelling of constants, which models mix in."""
    return {"True": "true", "False": "false", "None": "null"}.get(text, text)


def _kinds(schema: Any) -> set[str]:
    """Types that a schema names, one level of alternatives deep."""
    if not isinstance(schema, Mapping):
        return set()
    branches = [schema]
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list):
            branches += [one for one in schema[word] if isinstance(one, Mapping)]
    found: set[str] = set()
    for branch in branches:
        kind = branch.get("type")
        kinds = kind if isinstance(kind, list) else [kind]
        found.update(one for one in kinds if isinstance(one, str))
        found.update({"object"} if "properties" in branch else ())
    return found
