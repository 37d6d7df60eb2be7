"""One answer read as it grows: thoughts first, then content and calls of tools."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rtp_core.api import (
    AnswerEvent,
    AnswerParser,
    ContentDelta,
    ReasoningDelta,
    ReasoningFormat,
    Tool,
    ToolArguments,
    ToolFormat,
    ToolStart,
)
from rtp_core.text.tokenizer import Tokenizer

PROMPT_TAIL_TOKENS = 32
"""Tokens at the end of a prompt that tell whether thinking has begun."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How the answers of a request are to be read; None = that part is not looked for.

    `max_calls` None allows any number. `opening` is the text that the answer continues, for
    a prompt that ends inside an assistant's turn.
    """

    reasoning: ReasoningFormat | None = None
    calls: ToolFormat | None = None
    tools: Sequence[Tool] = ()
    max_calls: int | None = None

    def reader(self, tokenizer: Tokenizer, prompt_token_ids: Sequence[int]) -> AnswerReader:
        """A reader for one answer to this prompt."""
        formats = [one for one in (self.reasoning, self.calls) if one is not None]
        shown = [mark for one in formats for mark in one.marks]
        return AnswerReader(self, prompt_tail(tokenizer, prompt_token_ids), tokenizer.ids_of(shown))


class AnswerReader:
    """Events of one answer. `shown` are ids of special tokens that it must see.

    A thought ends before the first content, and calls are looked for in the content only.
    """

    def __init__(self, reading: Reading, prompt: str, shown: frozenset[int]) -> None:
        self.shown = shown
        self.thinking = reading.reasoning is not None and reading.reasoning.thinks(prompt)
        self._max_calls = reading.max_calls
        self._thoughts = None if reading.reasoning is None else reading.reasoning.parser(prompt)
        self._calls = None if reading.calls is None else reading.calls.parser(reading.tools)

    def feed(self, text: str) -> list[AnswerEvent]:
        """As AnswerParser."""
        thoughts = (ContentDelta(text),) if self._thoughts is None else self._thoughts.feed(text)
        return self._in_content(thoughts)

    def end(self) -> list[AnswerEvent]:
        """As AnswerParser."""
        events = self._in_content(() if self._thoughts is None else self._thoughts.end())
        return events if self._calls is None else [*events, *self._calls.end()]

    def is_too_many(self, event: AnswerEvent) -> bool:
        """True for a call beyond the limit."""
        return (
            isinstance(event, ToolStart)
            and self._max_calls is not None
            and event.index >= self._max_calls
        )

    def _in_content(self, events: Iterable[AnswerEvent]) -> list[AnswerEvent]:
        found: list[AnswerEvent] = []
        for event in events:
            self.thinking = isinstance(event, ReasoningDelta)
            if self._calls is not None and isinstance(event, ContentDelta):
                found.extend(self._calls.feed(event.text))
            else:
                found.append(event)
        return found


def prompt_tail(tokenizer: Tokenizer, prompt_token_ids: Sequence[int]) -> str:
    """The end of a prompt as text, special tokens included."""
    return tokenizer.decode(prompt_token_ids[-PROMPT_TAIL_TOKENS:], skip_special_tokens=False)


def append(events: list[AnswerEvent], event: AnswerEvent) -> None:
    """Add an event, joined to the last one if both are parts of the same."""
    last = events[-1] if events else None
    if isinstance(last, ToolArguments) and isinstance(event, ToolArguments):
        if last.index == event.index:
            events[-1] = replace(last, text=last.text + event.text)
            return
    elif type(last) is type(event) and isinstance(last, (ContentDelta, ReasoningDelta)):
        events[-1] = replace(last, text=last.text + event.text)  # type: ignore[union-attr]
        return
    events.append(event)


def joined(parser: AnswerParser, text: str) -> list[AnswerEvent]:
    """The events of a whole text."""
    events: list[AnswerEvent] = []
    for event in (*parser.feed(text), *parser.end()):
        append(events, event)
    return events
