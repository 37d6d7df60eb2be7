"""An answer as a row of blocks (reasoning, text, calls of tools), each told from its first
character to its last. Two APIs describe their answers so, in their own words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rtp_core.api import (
    AnswerEvent,
    ContentDelta,
    FinishReason,
    ReasoningDelta,
    TokenLogprob,
    ToolArguments,
    ToolStart,
)
from rtp_core.server.generation import Piece

Kind = Literal["text", "reasoning", "call"]


@dataclass(slots=True)
class Block:
    """`text` is what is said, thought, or the arguments of a call as JSON.

    `complete` is False when the answer ended for want of room inside this block.
    """

    kind: Kind
    index: int
    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    call_id: str = ""
    name: str = ""
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Change:
    """A block began, grew by `text`, or ended. `logprobs` are of tokens of a text block."""

    step: Literal["began", "grew", "ended"]
    block: Block
    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()


class Blocks:
    """Cuts the pieces of one choice into blocks; an answer of nothing is one empty text."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.finish_reason: FinishReason | None = None
        self.stop_reason: int | str | None = None
        self._open: Block | None = None
        self._unheard: list[TokenLogprob] = []

    @property
    def has_calls(self) -> bool:
        """True when a tool was called."""
        return any(block.kind == "call" for block in self.blocks)

    def feed(self, piece: Piece) -> list[Change]:
        """What a piece changes, in order."""
        delta = piece.delta
        self._unheard.extend(delta.logprobs or ())
        changes: list[Change] = []
        for event in delta.events:
            changes += self._take(event)
        if delta.finish_reason is not None:
            self.finish_reason, self.stop_reason = delta.finish_reason, delta.stop_reason
            changes += self._finish()
        return changes

    def _take(self, event: AnswerEvent) -> list[Change]:
        match event:
            case ContentDelta(text=text):
                return self._grow("text", text)
            case ReasoningDelta(text=text):
                return self._grow("reasoning", text)
            case ToolStart(id=call_id, name=name):
                call = Block("call", len(self.blocks), call_id=call_id, name=name)
                return [*self._close(), *self._begin(call)]
            case ToolArguments(text=text):
                return self._grow("call", text)

    def _grow(self, kind: Kind, text: str) -> list[Change]:
        changes: list[Change] = []
        if self._open is None or self._open.kind != kind:
            changes += [*self._close(), *self._begin(Block(kind, len(self.blocks)))]
        block = self.blocks[-1]
        block.text += text
        changes.append(Change("grew", block, text, self._heard(block)))
        return changes

    def _begin(self, block: Block) -> list[Change]:
        self.blocks.append(block)
        self._open = block
        return [Change("began", block)]

    def _close(self) -> list[Change]:
        block, self._open = self._open, None
        if block is None:
            return []
        self._heard(block)
        return [Change("ended", block)]

    def _finish(self) -> list[Change]:
        began = [] if self.blocks else self._begin(Block("text", 0))
        if self._open is not None:
            self._open.complete = self.finish_reason is not FinishReason.LENGTH
        return [*began, *self._close()]

    def _heard(self, block: Block) -> tuple[TokenLogprob, ...]:
        """Log-probabilities since the last text; those of other blocks are not told."""
        heard = tuple(self._unheard) if block.kind == "text" else ()
        self._unheard.clear()
        block.logprobs.extend(heard)
        return heard
