"""What one setting means and which values it may have, kept beside its default."""

from __future__ import annotations

import dataclasses
import functools
import re
import typing
from collections.abc import Iterable
from typing import Any, ClassVar

from rtp_core.config.values import Mismatch, coerce
from rtp_core.errors import ConfigError


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """Meaning and bounds of a setting.

    `low` and `high` are inclusive, `below` is exclusive; each item of a list is checked.
    `pattern` is a regular expression for the whole of a text.
    `otherwise` replaces the usual remedy where a value is refused for a reason of its own.
    `flag` is the command-line name, where vLLM has one with the same meaning.
    """

    doc: str
    low: float | None = None
    high: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ""
    otherwise: str = ""
    flag: str | None = None

    def allows(self, value: Any) -> bool:
        """Whether one scalar keeps the bounds."""
        if self.choices:
            return value in self.choices
        if self.pattern:
            return re.fullmatch(self.pattern, value) is not None
        return not (
            (self.low is not None and value < self.low)
            or (self.high is not None and value > self.high)
            or (self.below is not None and value >= self.below)
        )

    @property
    def bounds(self) -> str:
        """The allowed values in words; empty when all are."""
        if self.choices:
            return " or ".join(self.choices)
        if self.below is not None:
            return f"at least {self.low:g}, less than {self.below:g}"
        if self.high is not None:
            return f"{self.low:g} to {self.high:g}" if self.low != self.high else f"{self.low:g}"
        return "" if self.low is None else f"at least {self.low:g}"


def rule(
    doc: str, *, low: float | None = None, high: float | None = None, **more: Any
) -> dict[str, Rule]:
    """Metadata of a dataclass field; see Rule for the meaning of the arguments."""
    return {"rule": Rule(doc, low, high, **more)}


class Section:
    """Root of the sections: every value is brought to its type and checked at construction."""

    __slots__ = ()
    section: ClassVar[str]

    def __post_init__(self) -> None:
        for key in settings_of(type(self)):
            object.__setattr__(self, key, clean(type(self), key, getattr(self, key)))


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One field of a section, with its resolved type."""

    key: str
    annotation: Any
    default: Any
    rule: Rule


@functools.cache
def settings_of(section: type[Section]) -> dict[str, Setting]:
    """The settings of a section by key, in the order written."""
    hints = typing.get_type_hints(section)
    fields = dataclasses.fields(section)  # pyright: ignore[reportArgumentType]
    return {
        field.name: Setting(field.name, hints[field.name], field.default, field.metadata["rule"])
        for field in fields
    }


def clean(section: type[Section], key: str, value: Any, source: str = "") -> Any:
    """The value in its declared type and inside its bounds. Raises ConfigError.

    `source` says where the value came from, for the message.
    """
    setting = settings_of(section)[key]
    where = f", given by {source}" if source else ""
    try:
        cleaned = coerce(value, setting.annotation)
    except Mismatch as mismatch:
        message = f"{_shown(value)} is not allowed{where}"
        bounds = setting.rule.bounds
        expected = f"give {mismatch}, {bounds}" if bounds else f"give {mismatch}"
        raise ConfigError(f"{section.section}.{key}", message, remedy=expected) from None
    items = cleaned if isinstance(cleaned, tuple) else (cleaned,)
    for number, item in enumerate(items):
        if item is not None and not setting.rule.allows(item):
            near = close_to(item, setting.rule.choices) if isinstance(item, str) else ""
            remedy = setting.rule.otherwise or f"use {setting.rule.bounds}"
            remedy = f"{near} {remedy}" if near else remedy
            message = f"{_shown(item)} is not allowed{where}"
            raise ConfigError(f"{section.section}.{key}", message, remedy=remedy)
        if item in items[:number]:
            message = f"{_shown(item)} is named twice{where}"
            raise ConfigError(f"{section.section}.{key}", message, remedy="name each once")
    return cleaned


def nearest(name: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?``, or the known names when none is near."""
    names = sorted(known)
    all_of_them = f"known: {', '.join(names)}" if names else "there are none"
    return close_to(name, names) or all_of_them


def close_to(name: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?``, or nothing when none is near."""
    import difflib

    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else ""


def _shown(value: Any) -> str:
    return repr(str(value)) if isinstance(value, str) else repr(value)
