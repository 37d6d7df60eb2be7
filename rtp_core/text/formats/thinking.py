"""Thoughts between two marks at the beginning of an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rtp_core.api import AnswerEvent, AnswerParser, ContentDelta, ReasoningDelta


@dataclass(frozen=True, slots=True)
class ThinkFormat:
    """`begins_inside`: an answer thinks from its first token although no mark says so.

    The prompt's end decides first: models whose template writes `open` begin inside, those
    whose template writes the closed pair begin with their answer.
    """

    open: str = "<think>"
    close: str = "</think>"
    begins_inside: bool = False

    @property
    def marks(self) -> Sequence[str]:
        """As ReasoningFormat."""
        return (self.open, self.close)

    def parser(self, prompt: str) -> AnswerParser:
        """As ReasoningFormat."""
        begun = self._begun(prompt)
        if begun is False:
            return _Content()
        return ThinkParser(self, self.begins_inside if begun is None else begun)

    def thinks(self, prompt: str) -> bool:
        """As ReasoningFormat."""
        return self._begun(prompt) is not False

    def _begun(self, prompt: str) -> bool | None:
        """True when thinking has begun, False when it is over, None when nothing is said."""
        end = prompt.rstrip()
        if end.endswith(self.close):
            return False
        return True if end.endswith(self.open) else None


class _Content:
    """An answer without thoughts."""

    def feed(self, text: str) -> Sequence[AnswerEvent]:
        return (ContentDelta(text),) if text else ()

    def end(self) -> Sequence[AnswerEvent]:
        return ()


class ThinkParser:
    """An AnswerParser. White space beside the marks is dropped, all other text is told."""

    def __init__(self, form: ThinkFormat, inside: bool) -> None:
        self._open, self._close = form.open, form.close
        self._inside = inside
        self._thought = False
        self._kind: type[ReasoningDelta | ContentDelta] = ContentDelta
        self._partial = ""
        self._blank: list[str] = []
        self._text: list[str] = []
        self._events: list[AnswerEvent] = []
        self._take: Callable[[str], None] = self._before

    def feed(self, text: str) -> Sequence[AnswerEvent]:
        """As AnswerParser."""
        for at, char in enumerate(text):
            if self._take == self._after:
                self._text.append(text[at:])
                break
            self._take(char)
        return self._told()

    def end(self) -> Sequence[AnswerEvent]:
        """As AnswerParser. An answer that never stopped thinking is all thoughts."""
        if self._take == self._before and not self._inside:
            self._text += [*self._blank, self._partial]
        elif self._take != self._after:
            self._kind = ReasoningDelta
            self._text += [*(self._blank if self._partial and self._thought else ()), self._partial]
        self._partial, self._blank = "", []
        return self._told()

    def _before(self, char: str) -> None:
        """Until the opening mark, or something else, has come."""
        seen = self._partial + char
        if char.isspace() and not self._partial:
            self._blank.append(char)
        elif seen == self._open:
            self._partial, self._blank = "", []
            self._begin(ReasoningDelta, self._within)
        elif self._open.startswith(seen):
            self._partial = seen
        else:
            self._partial = ""
            if self._inside:
                self._blank = []
                self._begin(ReasoningDelta, self._within)
            else:
                self._begin(ContentDelta, self._after)
                self._text += self._blank
                self._blank = []
            for one in seen:
                self._take(one)

    def _within(self, char: str) -> None:
        """Thoughts, until the closing mark has come."""
        seen = self._partial + char
        while seen:
            if seen == self._close:
                self._partial, self._blank = "", []
                self._begin(ContentDelta, self._behind)
                return
            if self._close.startswith(seen):
                break
            self._think(seen[0])
            seen = seen[1:]
        self._partial = seen

    def _think(self, char: str) -> None:
        if char.isspace():
            self._blank.append(char)
            return
        self._text += [*(self._blank if self._thought else ()), char]
        self._blank, self._thought = [], True

    def _behind(self, char: str) -> None:
        """White space after the closing mark."""
        if not char.isspace():
            self._take = self._after
            self._after(char)

    def _after(self, char: str) -> None:
        self._text.append(char)

    def _begin(
        self, kind: type[ReasoningDelta | ContentDelta], take: Callable[[str], None]
    ) -> None:
        self._flush()
        self._kind, self._take = kind, take

    def _flush(self) -> None:
        text = "".join(self._text)
        self._text = []
        if text:
            self._events.append(self._kind(text))

    def _told(self) -> Sequence[AnswerEvent]:
        self._flush()
        events, self._events = self._events, []
        return events
