"""What a model's text says: words for the reader, thoughts, and calls of tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class ContentDelta:
    """Text for the reader."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """Text the model thought before it answered; its marks are not part of it."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolStart:
    """A call of tool `name` begins; `index` counts the calls of one answer from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolArguments:
    """The next piece of a call's arguments; all pieces joined are a JSON object."""

    index: int
    text: str


AnswerEvent = ContentDelta | ReasoningDelta | ToolStart | ToolArguments


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; `parameters` is a JSON Schema, None if not given."""

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ToolRules:
    """Which tools an answer must call, at least one of them; `parallel` allows several calls."""

    tools: Sequence[Tool]
    parallel: bool = True


class AnswerParser(Protocol):
    """Reads one answer as it grows. Linear in the length of the text; never raises.

    However the text is cut into pieces, the events are the same once neighbours of a kind are
    joined. What is not understood is content: nothing is lost but marks, and white space
    beside calls and thoughts.
    """

    def feed(self, text: str) -> Sequence[AnswerEvent]:
        """What this text decides; an undecided rest waits."""
        ...

    def end(self) -> Sequence[AnswerEvent]:
        """What still waits, when no more text will come."""
        ...


class ToolFormat(Protocol):
    """How a family of models writes calls of tools (role ``tool_parser``).

    `marks` are texts of the format that a vocabulary may hold as special tokens; they are
    shown to the parser although special tokens are left out of texts otherwise.
    """

    @property
    def marks(self) -> Sequence[str]:
        """Texts that must reach the parser even if they are special tokens."""
        ...

    def parser(self, tools: Sequence[Tool]) -> AnswerParser:
        """A parser for one answer; it emits ContentDelta, ToolStart and ToolArguments."""
        ...

    def grammar(self, rules: ToolRules, spell: Callable[[str], str]) -> str | None:
        """A Lark grammar of answers that are calls under `rules` and nothing else.

        The dialect is that of llguidance, in which ``%json {...}`` stands for a value that a
        schema accepts; `spell` writes a mark, which may be a special token. None when the
        format has no grammar: calls that must be made are then written as Hermes does.
        """
        ...


class ReasoningFormat(Protocol):
    """How a family of models marks its thoughts (role ``reasoning_parser``)."""

    @property
    def marks(self) -> Sequence[str]:
        """Texts that must reach the parser even if they are special tokens."""
        ...

    @property
    def close(self) -> str:
        """The text that ends thinking."""
        ...

    def parser(self, prompt: str) -> AnswerParser:
        """A parser for one answer to `prompt`, of which the end is given.

        It emits ReasoningDelta and ContentDelta. The prompt tells whether thinking has begun
        or is over before the first token.
        """
        ...

    def thinks(self, prompt: str) -> bool:
        """True when an answer to `prompt` has thoughts before anything else."""
        ...
