"""What every format of calls and of thoughts must keep, on any text."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence

from rtp_core.api import (
    AnswerEvent,
    AnswerParser,
    ContentDelta,
    ReasoningFormat,
    Tool,
    ToolArguments,
    ToolFormat,
    ToolStart,
)
from rtp_core.testing.conformance.shape import has_members
from rtp_core.testing.conformance.verdict import Check, Make, NotConformingError, require, show
from rtp_core.testing.contexts import build_context

NUM_TEXTS = 64
MOST_SECONDS = 5.0
_TOOLS = (Tool("f", None, {"type": "object", "properties": {"a": {"type": "integer"}}}),)
_WORDS = (
    "f", "{", "}", "[", "]", "(", ")", '"', ":", ",", "=", "\\", "\n", " ", "text", "é", "<", ">",
    '{"name": "f", "arguments": {"a": 1}}', "f(a=1)",
)  # fmt: skip
_PROMPT = "a prompt"


def calls_do_not_depend_on_the_pieces(make: Make) -> None:
    """Fed whole or character by character, a text gives the same events once joined."""
    _same_in_pieces(_calls(make))


def thoughts_do_not_depend_on_the_pieces(make: Make) -> None:
    """Fed whole or character by character, a text gives the same events once joined."""
    _same_in_pieces(_thoughts(make))


def plain_text_is_content(make: Make) -> None:
    """Without marks an answer is content, to the letter."""
    new, _ = _calls(make)
    text = "A plain answer, of two lines.\nNo call."
    found = _said(_read(new(), [text]))
    require(found == text, f"content {text!r}", repr(found), "return what is no call as content")


def calls_are_numbered_from_zero(make: Make) -> None:
    """`ToolStart` counts up, and `ToolArguments` follow the start of their call."""
    new, texts = _calls(make)
    for text in texts:
        number = -1
        for event in _read(new(), [text]):
            if isinstance(event, ToolStart):
                number += 1
            if isinstance(event, (ToolStart, ToolArguments)):
                require(
                    event.index == number,
                    f"index {number} in the events of {text!r}",
                    str(event.index),
                    "count calls from 0, and tell each to its end before the next",
                )


def long_calls_take_linear_time(make: Make) -> None:
    """A million characters of opening marks."""
    _linear(_calls(make)[0], make(build_context()).marks)


def long_thoughts_take_linear_time(make: Make) -> None:
    """A million characters of opening marks."""
    _linear(_thoughts(make)[0], make(build_context()).marks)


TOOL_CHECKS: tuple[Check, ...] = (
    has_members(ToolFormat),
    calls_do_not_depend_on_the_pieces,
    plain_text_is_content,
    calls_are_numbered_from_zero,
    long_calls_take_linear_time,
)
REASONING_CHECKS: tuple[Check, ...] = (
    has_members(ReasoningFormat),
    thoughts_do_not_depend_on_the_pieces,
    long_thoughts_take_linear_time,
)

New = Callable[[], AnswerParser]


def _calls(make: Make) -> tuple[New, Sequence[str]]:
    form: ToolFormat = make(build_context())
    return lambda: form.parser(_TOOLS), list(_texts(form.marks))


def _thoughts(make: Make) -> tuple[New, Sequence[str]]:
    form: ReasoningFormat = make(build_context())
    return lambda: form.parser(_PROMPT), list(_texts(form.marks))


def _texts(marks: Sequence[str]) -> Iterator[str]:
    """Texts that begin and break off the format at random; always the same ones."""
    chosen = random.Random(0)
    words = (*_WORDS, *tuple(marks) * 4)
    for length in itertools.islice(itertools.cycle(range(1, 16)), NUM_TEXTS):
        yield "".join(chosen.choices(words, k=length))


def _same_in_pieces(subject: tuple[New, Sequence[str]]) -> None:
    new, texts = subject
    for text in texts:
        whole, pieces = _read(new(), [text]), _read(new(), text)
        require(
            whole == pieces,
            f"the same events for {text!r} in one piece and in single characters",
            f"{show(whole)} and {show(pieces)}",
            "hold back what is undecided, and decide by what has come, not by how",
        )


def _linear(new: New, marks: Sequence[str]) -> None:
    unit = "".join(marks) or "<"
    text = unit * (2**20 // len(unit))
    began = time.process_time()
    parser = new()
    for at in range(0, len(text), 64):
        parser.feed(text[at : at + 64])
    parser.end()
    seconds = time.process_time() - began
    require(
        seconds <= MOST_SECONDS,
        f"{len(text)} characters in {MOST_SECONDS:.0f} s of CPU time",
        f"{seconds:.1f} s",
        "look at each character a bounded number of times",
    )


def _read(parser: AnswerParser, pieces: Sequence[str]) -> list[AnswerEvent]:
    """Events with neighbours joined; ids, which are drawn anew, are left out."""
    try:
        events = [event for piece in pieces for event in parser.feed(piece)]
        events += parser.end()
    except Exception as error:
        text = "".join(pieces)
        raise NotConformingError(
            f"no exception for {text!r}", repr(error), "return as content what is not understood"
        ) from error
    found: list[AnswerEvent] = []
    for event in events:
        last = found[-1] if found else None
        if isinstance(event, ToolStart):
            found.append(ToolStart(event.index, "", event.name))
        elif isinstance(last, ToolArguments) and isinstance(event, ToolArguments):
            found[-1] = ToolArguments(event.index, last.text + event.text)
        elif last is not None and type(last) is type(event) and not isinstance(last, ToolStart):
            found[-1] = type(event)(text=last.text + event.text)  # pyright: ignore[reportCallIssue]
        else:
            found.append(event)
    return found


def _said(events: Sequence[AnswerEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, ContentDelta))
