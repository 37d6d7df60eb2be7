"""Where a JSON value ends, found character by character without building it."""

from __future__ import annotations

from enum import Enum, auto

MAX_DEPTH = 128
_CLOSER = {"{": "}", "[": "]"}
_OUTSIDE = frozenset("{}[]:,+-.0123456789eE \t\r\n" + "truefalsn")
"""What stands outside of strings; the literals' letters cover true, false and null."""


class Step(Enum):
    """What a character did to the thing being read."""

    MORE = auto()
    DONE = auto()
    """Complete with this character."""
    OVER = auto()
    """Was complete before this character, which is not part of it."""
    BROKEN = auto()
    """This character cannot stand here."""


class JsonSpan:
    """The extent of one object or array. Says no to the first character that cannot belong.

    It does not check grammar inside brackets: a JSON decoder does that, once, at the end.
    Nesting beyond `MAX_DEPTH` is broken.
    """

    def __init__(self) -> None:
        self.chars: list[str] = []
        self._open: list[str] = []
        self._in_string = False
        self._escaped = False

    @property
    def text(self) -> str:
        """What was taken so far."""
        return "".join(self.chars)

    def take(self, char: str) -> Step:
        """The next character."""
        step = self._in_text(char) if self._in_string else self._outside(char)
        if step is not Step.BROKEN:
            self.chars.append(char)
        return step

    def _in_text(self, char: str) -> Step:
        if self._escaped:
            self._escaped = False
        elif char == "\\":
            self._escaped = True
        elif char == '"':
            self._in_string = False
        return Step.MORE

    def _outside(self, char: str) -> Step:
        if char in _CLOSER:
            self._open.append(_CLOSER[char])
            return Step.BROKEN if len(self._open) > MAX_DEPTH else Step.MORE
        if not self._open:
            return Step.BROKEN
        if char == '"':
            self._in_string = True
            return Step.MORE
        if char in "}]":
            if self._open.pop() != char:
                return Step.BROKEN
            return Step.MORE if self._open else Step.DONE
        return Step.MORE if char in _OUTSIDE else Step.BROKEN


class Literal:
    """A fixed text that must come next."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    @property
    def taken(self) -> str:
        """How much of it has come."""
        return self._text[: self._at]

    def take(self, char: str) -> Step:
        """The next character."""
        if char != self._text[self._at]:
            return Step.BROKEN
        self._at += 1
        return Step.DONE if self._at == len(self._text) else Step.MORE
