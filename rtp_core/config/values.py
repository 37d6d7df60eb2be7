"""From what a source holds (TOML, Python, text) to the type a dataclass field declares.

Used for the settings tree and for the option tables of plugins, so both take the same
spellings. Types understood: bool, int, float, str, Literal of strings, tuples of those, and
any of them or None.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


class Text(str):
    """A value from a flag or the environment: it has no type yet.

    A list is written with commas or as in TOML; ``none`` stands for None where None is allowed.
    """

    __slots__ = ()


class Mismatch(Exception):
    """The value has another type; the argument says what is expected, with its article."""


def coerce(value: Any, annotation: Any) -> Any:
    """`value` as `annotation`; a scalar is taken for a list of one. Raises Mismatch.

    Raises TypeError for an annotation outside the list of this module's docstring.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return _optional(value, arguments)
    if origin is Literal:
        return _literal(value, arguments)
    if origin is tuple:
        return _items(value, arguments[0])
    if annotation not in _SCALARS:
        raise TypeError(f"{annotation!r} is not a type that settings can have")
    return _SCALARS[annotation](value)


def _optional(value: Any, arguments: Sequence[Any]) -> Any:
    if value is None or (isinstance(value, Text) and value.lower() == "none"):
        return None
    (inner,) = (argument for argument in arguments if argument is not types.NoneType)
    return coerce(value, inner)


def _literal(value: Any, choices: Sequence[str]) -> str:
    if value not in choices:
        raise Mismatch("one of " + ", ".join(choices))
    return str(value)


def _items(value: Any, annotation: Any) -> tuple[Any, ...]:
    if isinstance(value, Text):
        value = _listed(value)
    elif not isinstance(value, (list, tuple)):
        value = [value]
    try:
        return tuple(coerce(item, annotation) for item in value)
    except Mismatch as mismatch:
        raise Mismatch(f"a list; each item is {mismatch}") from None


def _listed(text: Text) -> list[Any]:
    if not (text.startswith("[") and text.endswith("]")):
        return [Text(part.strip()) for part in text.split(",") if part.strip()]
    import tomllib  # few command lines need it

    try:
        return tomllib.loads(f"list = {text}")["list"]
    except tomllib.TOMLDecodeError:
        raise Mismatch('a list, written a,b or ["a", "b"]') from None


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, Text) and value.lower() in _TRUE | _FALSE:
        return value.lower() in _TRUE
    raise Mismatch("true or false")


def _integer(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, Text):
        try:
            return int(value)
        except ValueError:
            raise Mismatch("an integer") from None
    raise Mismatch("an integer")


def _real(value: Any) -> float:
    if isinstance(value, Text):
        try:
            value = float(value)
        except ValueError:
            raise Mismatch("a number") from None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise Mismatch("a number")
    return float(value)


def _string(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise Mismatch("a string that is not empty")
    return str(value)


_SCALARS: dict[Any, Callable[[Any], Any]] = {
    bool: _boolean,
    int: _integer,
    float: _real,
    str: _string,
}
