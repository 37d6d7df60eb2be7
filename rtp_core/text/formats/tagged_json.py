"""Calls as JSON behind a mark: the formats of Hermes, Mistral and Llama 3.

Hermes (also Qwen2.5, Qwen3, SmolLM2): ``<tool_call>{"name": …, "arguments": {…}}</tool_call>``,
an object a call, or a list of them as SmolLM2 writes. Mistral: ``[TOOL_CALLS]`` before a list
of such objects; since version 11 of its tokenizer ``[TOOL_CALLS]name[ARGS]{…}``, once a call.
Llama 3: ``{"name": …, "parameters": {…}}`` and nothing around it, or ``<|python_tag|>`` before
it; ``; `` between several. The forms are those of the models' public chat templates.
"""

from __future__ import annotations

from collections.abc import Sequence

from rtp_core.text.formats.calls import (
    MAX_NAME_CHARS,
    FunctionCall,
    NoCallError,
    call_of,
    calls_of,
    decoded,
)
from rtp_core.text.formats.json_span import JsonSpan, Literal, Step

_ARGUMENTS = "[ARGS]"


class ClosedJson:
    """A JSON value between white space, then a closing mark, which may be missing."""

    def __init__(self, close: str) -> None:
        self._value = JsonSpan()
        self._close = Literal(close)
        self._whole = False

    @property
    def leftover(self) -> str:
        """As Body."""
        return self._close.taken

    def take(self, char: str) -> Step:
        """As Body."""
        if self._whole:
            return self._take_close(char)
        if char.isspace() and not self._value.chars:
            return Step.MORE
        step = self._value.take(char)
        self._whole = step is Step.DONE
        return Step.MORE if self._whole else step

    def calls(self) -> Sequence[FunctionCall]:
        """As Body."""
        return calls_of(decoded(self._value.text))

    def _take_close(self, char: str) -> Step:
        if char.isspace() and not self._close.taken:
            return Step.MORE
        step = self._close.take(char)
        return Step.OVER if step is Step.BROKEN else step


class SeveralJson:
    """JSON objects with semicolons between them, without a closing mark."""

    leftover = ""

    def __init__(self) -> None:
        self._values = [JsonSpan()]
        self._whole = False

    def take(self, char: str) -> Step:
        """As Body."""
        value = self._values[-1]
        if char.isspace() and (self._whole or not value.chars):
            return Step.MORE
        if not self._whole:
            step = value.take(char)
            self._whole = step is Step.DONE
            return Step.MORE if self._whole else step
        if char != ";":
            return Step.OVER
        self._values.append(JsonSpan())
        self._whole = False
        return Step.MORE

    def calls(self) -> Sequence[FunctionCall]:
        """As Body; a semicolon after the last object is let pass."""
        texts = [value.text for value in self._values if value.chars]
        if not texts:
            raise NoCallError("nothing but a mark")
        return [call for text in texts for call in calls_of(decoded(text))]


class MistralJson:
    """A list or an object with names in it, or a name before an object of arguments."""

    leftover = ""

    def __init__(self) -> None:
        self._name: list[str] = []
        self._mark = Literal(_ARGUMENTS)
        self._marking = False
        self._value = JsonSpan()

    def take(self, char: str) -> Step:
        """As Body."""
        if self._value.chars:
            return self._value.take(char)
        if self._marking:
            step = self._mark.take(char)
            self._marking = step is Step.MORE
            return Step.MORE if step is Step.DONE else step
        return Step.MORE if char.isspace() else self._before_value(char)

    def _before_value(self, char: str) -> Step:
        if char == "{" or (char == "[" and not self._name):
            return self._value.take(char)
        if self._mark.taken:
            return Step.BROKEN
        if char == "[":
            self._marking = True
            return self._mark.take(char)
        self._name.append(char)
        return Step.MORE if _in_name(char) and len(self._name) <= MAX_NAME_CHARS else Step.BROKEN

    def calls(self) -> Sequence[FunctionCall]:
        """As Body."""
        value = decoded(self._value.text)
        return [call_of("".join(self._name), value)] if self._name else calls_of(value)


def _in_name(char: str) -> bool:
    return char.isalnum() or char in "_-."
