"""DeepSeek V3 and R1: each call between its own marks, arguments in a fenced block of JSON.

``<｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME`` line end, a block ```` ```json ````, then
``<｜tool▁call▁end｜>``; V3.1 writes ``NAME<｜tool▁sep｜>{…}`` instead. All calls stand between
``<｜tool▁calls▁begin｜>`` and ``<｜tool▁calls▁end｜>``. From the models' public chat templates.
"""

from __future__ import annotations

from collections.abc import Sequence

from rtp_core.text.formats.calls import MAX_NAME_CHARS, FunctionCall, call_of, decoded
from rtp_core.text.formats.json_span import JsonSpan, Literal, Step

CALLS_BEGIN, CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL_BEGIN, CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
SEPARATOR = "<｜tool▁sep｜>"
_FENCE = "```"


class DeepSeekBody:
    """Text up to the separator, text up to the arguments, arguments, text up to the end."""

    leftover = ""

    def __init__(self) -> None:
        self._head: list[str] = []
        self._separator = Literal(SEPARATOR)
        self._line: list[str] = []
        self._value = JsonSpan()
        self._close = Literal(CALL_END)
        self._part = self._in_head

    def take(self, char: str) -> Step:
        """As Body."""
        return self._part(char)

    def calls(self) -> Sequence[FunctionCall]:
        """As Body."""
        words = "".join(self._line).split()
        name = words[0] if words and words[0] != f"{_FENCE}json" else "".join(self._head).strip()
        return [call_of(name, decoded(self._value.text))]

    def _in_head(self, char: str) -> Step:
        if char == SEPARATOR[0] or self._separator.taken:
            step = self._separator.take(char)
            if step is Step.DONE:
                self._part = self._in_line
            return Step.MORE if step is Step.DONE else step
        self._head.append(char)
        return Step.MORE if len(self._head) <= MAX_NAME_CHARS else Step.BROKEN

    def _in_line(self, char: str) -> Step:
        if char == "{":
            self._part = self._in_value
            return self._value.take(char)
        self._line.append(char)
        return Step.MORE if len(self._line) <= 2 * MAX_NAME_CHARS else Step.BROKEN

    def _in_value(self, char: str) -> Step:
        step = self._value.take(char)
        if step is Step.DONE:
            self._part = self._in_close
            return Step.MORE
        return step

    def _in_close(self, char: str) -> Step:
        if not self._close.taken and (char.isspace() or char in _FENCE):
            return Step.MORE
        return self._close.take(char)
