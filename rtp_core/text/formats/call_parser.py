"""The one machine that finds calls in an answer; formats say how a call begins and what is in it.

Every character is looked at once, or twice where it turns out to belong to no call. A call is
told when all of it has been understood, so that no client ever holds half a call; what is not
understood is content, and is not searched for calls again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from rtp_core.api import AnswerEvent, ContentDelta, ToolArguments, ToolStart
from rtp_core.text.formats.calls import FunctionCall, NoCallError, new_call_id
from rtp_core.text.formats.json_span import Step


class Body(Protocol):
    """What stands behind an opening mark."""

    @property
    def leftover(self) -> str:
        """After OVER: characters taken at last that are not part of the call."""
        ...

    def take(self, char: str) -> Step:
        """The next character."""
        ...

    def calls(self) -> Sequence[FunctionCall]:
        """The calls, when complete or at the end of the answer. Raises NoCallError."""
        ...


@dataclass(frozen=True, slots=True)
class Syntax:
    """`openings` begin a body anywhere; `bare` characters do at the beginning of an answer.

    `noise` are marks around calls without a meaning of their own, dropped where they stand
    beside a call. A bare body is a call only if it names a tool there is.
    """

    openings: tuple[str, ...]
    body: Callable[[], Body]
    bare: str = ""
    noise: tuple[str, ...] = ()
    new_id: Callable[[], str] = new_call_id


class CallParser:
    """An AnswerParser for one syntax; `names` are those of the tools there are."""

    def __init__(self, syntax: Syntax, names: frozenset[str]) -> None:
        self._syntax = syntax
        self._names = names
        marks = (*syntax.openings, *syntax.noise)
        self._prefixes = frozenset(mark[:end] for mark in marks for end in range(1, len(mark)))
        self._partial = ""
        self._opening: str | None = None
        self._body: Body | None = None
        self._held: list[str] = []
        self._blank: list[str] = []
        self._text: list[str] = []
        self._events: list[AnswerEvent] = []
        self._num_calls = 0
        self._said = self._after_call = False

    def feed(self, text: str) -> Sequence[AnswerEvent]:
        """As AnswerParser."""
        for char in text:
            self._take(char)
        return self._told()

    def end(self) -> Sequence[AnswerEvent]:
        """As AnswerParser. A call that lacks only its closing mark is complete."""
        if self._body is not None:
            self._finish()
        for char in self._partial:
            self._say(char)
        self._partial = ""
        if not self._after_call:
            self._text.extend(self._blank)
        self._blank.clear()
        return self._told()

    # ---- one character

    def _take(self, char: str) -> None:
        if self._body is None:
            self._in_content(char)
            return
        match self._body.take(char):
            case Step.MORE:
                self._held.append(char)
            case Step.DONE:
                self._held.append(char)
                self._finish()
            case Step.OVER:
                rest = self._body.leftover
                self._finish()
                for one in rest + char:
                    self._in_content(one)
            case Step.BROKEN:
                self._give_up()
                self._in_content(char)

    def _in_content(self, char: str) -> None:
        if self._body is not None:  # a character before this one opened it
            self._take(char)
            return
        if char in self._syntax.bare and not (self._partial or self._said or self._num_calls):
            self._open("", char)
            return
        seen = self._partial + char
        while seen:
            if seen in self._syntax.openings:
                self._partial = ""
                self._open(seen)
                return
            if seen in self._syntax.noise:
                self._partial = ""
                self._blank.extend(() if self._after_call else (seen,))
                return
            if seen in self._prefixes:
                break
            self._say(seen[0])
            seen = seen[1:]
        self._partial = seen

    def _open(self, opening: str, first: str = "") -> None:
        self._opening = opening
        self._body = self._syntax.body()
        self._held = []
        for char in first:
            self._take(char)

    def _finish(self) -> None:
        """The body came to an end: calls if it can be understood, else content."""
        body = self._body
        if body is None:
            return
        try:
            calls = body.calls()
        except NoCallError:
            self._give_up()
            return
        if self._opening == "" and not all(one.name in self._names for one in calls):
            self._give_up()
            return
        self._body = None
        for call in calls:
            self._call(call)

    def _give_up(self) -> None:
        self._body = None
        for char in (*(self._opening or ""), *self._held):
            self._say(char)

    def _call(self, call: FunctionCall) -> None:
        self._flush()
        index = self._num_calls
        self._num_calls += 1
        self._after_call = True
        self._blank = [one for one in self._blank if one.isspace()]
        self._events.append(ToolStart(index, self._syntax.new_id(), call.name))
        self._events.append(ToolArguments(index, call.arguments))

    def _say(self, char: str) -> None:
        """Content; white space waits until it is known not to stand beside a call."""
        if char.isspace():
            self._blank.append(char)
            return
        if self._said or not self._num_calls:
            self._text.extend(self._blank)
        self._blank.clear()
        self._text.append(char)
        self._said, self._after_call = True, False

    def _flush(self) -> None:
        if self._text:
            self._events.append(ContentDelta("".join(self._text)))
            self._text = []

    def _told(self) -> Sequence[AnswerEvent]:
        self._flush()
        events, self._events = self._events, []
        return events
