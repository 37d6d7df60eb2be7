"""Llama 3.2 and 4: an answer that is a Python list of calls, ``[f(a=1), g()]``.

Only literals are accepted as arguments, and nothing is evaluated: the text is parsed and the
tree is read.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from rtp_core.text.formats.calls import FunctionCall, NoCallError, call_of
from rtp_core.text.formats.json_span import Step

MAX_DEPTH = 32
MAX_CHARS = 2**16
"""Longer lists are content: Python's parser needs some hundred bytes a character."""
_CLOSER = {"[": "]", "(": ")", "{": "}"}
_CONSTANTS = {"true": True, "false": False, "null": None}


class PythonBody:
    """The extent of a bracketed list, strings in it taken as Python takes them."""

    leftover = ""

    def __init__(self) -> None:
        self._chars: list[str] = []
        self._open: list[str] = []
        self._quote = ""
        self._escaped = False

    def take(self, char: str) -> Step:
        """As Body."""
        if not self._chars and char.isspace():
            return Step.MORE
        self._chars.append(char)
        if len(self._chars) > MAX_CHARS:
            return Step.BROKEN
        return self._in_string(char) if self._quote else self._outside(char)

    def _outside(self, char: str) -> Step:
        if char in _CLOSER:
            self._open.append(_CLOSER[char])
            too_deep = len(self._open) > MAX_DEPTH or self._open[0] != "]"
            return Step.BROKEN if too_deep else Step.MORE
        if not self._open:
            return Step.BROKEN
        if char in "'\"":
            self._quote = char
        elif char in "])}":
            if self._open.pop() != char:
                return Step.BROKEN
            return Step.MORE if self._open else Step.DONE
        return Step.MORE

    def calls(self) -> Sequence[FunctionCall]:
        """As Body."""
        return python_calls("".join(self._chars))

    def _in_string(self, char: str) -> Step:
        if self._escaped:
            self._escaped = False
        elif char == "\\":
            self._escaped = True
        elif char == self._quote:
            self._quote = ""
        return Step.MORE


def python_calls(text: str) -> list[FunctionCall]:
    """Calls of a list expression. Raises NoCallError for anything else."""
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise NoCallError("not Python") from error
    if not isinstance(tree, ast.List) or not tree.elts:
        raise NoCallError("not a list of calls")
    return [_call(node) for node in tree.elts]


def _call(node: ast.expr) -> FunctionCall:
    if not isinstance(node, ast.Call) or node.args:
        raise NoCallError("not a call with names of arguments")
    arguments: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in arguments:
            raise NoCallError("an argument without a name of its own")
        arguments[keyword.arg] = _value(keyword.value)
    return call_of(_name(node.func), arguments)


def _name(node: ast.expr) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        raise NoCallError("what is called has no name")
    return ".".join([node.id, *reversed(parts)])


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=str() | int() | float() | None as value):
            return value
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [_value(part) for part in parts]
        case ast.Dict(keys=keys, values=values):
            return {_key(key): _value(value) for key, value in zip(keys, values, strict=True)}
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
    raise NoCallError("not a literal")


def _key(node: ast.expr | None) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise NoCallError("a key is no string")
