"""Messages, whole and as a series of events."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from rtp_core.api import FinishReason
from rtp_core.errors import RequestError
from rtp_core.server import sse
from rtp_core.server.anthropic.errors import failure
from rtp_core.server.blocks import Block, Blocks, Change
from rtp_core.server.generation import Piece
from rtp_core.server.plan import Outcome
from rtp_core.server.rendering import Telling

Event = dict[str, Any]


class MessageRenderer:
    """Tells one message. `max_tokens` is what the client allowed."""

    wire: ClassVar[sse.Wire] = sse.MESSAGES

    def __init__(self, telling: Telling, max_tokens: int | None) -> None:
        self._telling = telling
        self._max_tokens = max_tokens
        self._blocks = Blocks()

    def opening(self) -> list[Event]:
        """The message without content; usage is that of the prompt."""
        prompt = len(self._telling.requests[0].prompt_token_ids)
        usage = self._usage() | {"input_tokens": prompt - self._telling.account.cached_tokens}
        message = self._message([], None) | {"usage": usage}
        return [{"type": "message_start", "message": message}, {"type": "ping"}]

    def frame(self, piece: Piece) -> bytes:
        """As plan.Renderer."""
        return self.wire.encode(self.events(piece))

    def events(self, piece: Piece) -> list[Event]:
        """What the piece changes."""
        return [event for change in self._blocks.feed(piece) for event in _told(change)]

    def closing(self) -> list[Event]:
        """Why the message ended, and what it cost."""
        end = {"stop_reason": self._stop_reason(), "stop_sequence": self._stop_sequence()}
        return [
            {"type": "message_delta", "delta": end, "usage": self._usage()},
            {"type": "message_stop"},
        ]

    def failed(self, error: RequestError) -> list[Event]:
        """The error, in place of what was to come."""
        return [failure(error)]

    def whole(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """The message when it is not streamed."""
        for piece in outcomes[0].pieces:
            self._blocks.feed(piece)
        content = [_content(block) for block in self._blocks.blocks]
        return self._message(content, self._stop_reason()) | {"usage": self._usage()}

    def _message(self, content: list[Any], stop_reason: str | None) -> dict[str, Any]:
        return {
            "id": f"msg_{self._telling.identity}",
            "type": "message",
            "role": "assistant",
            "model": self._telling.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": self._stop_sequence(),
        }

    def _stop_reason(self) -> str:
        if self._blocks.finish_reason is FinishReason.LENGTH:
            cut = self._telling.requests[0].sampling.max_tokens != self._max_tokens
            return "model_context_window_exceeded" if cut else "max_tokens"
        if self._blocks.has_calls:
            return "tool_use"
        return "end_turn" if self._stop_sequence() is None else "stop_sequence"

    def _stop_sequence(self) -> str | None:
        reason = self._blocks.stop_reason
        return reason if isinstance(reason, str) else None

    def _usage(self) -> dict[str, Any]:
        """Tokens read from the cache are counted apart from the others."""
        account = self._telling.account
        return {
            "input_tokens": account.prompt_tokens - account.cached_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": account.cached_tokens,
            "output_tokens": account.completion_tokens,
        }


def _told(change: Change) -> list[Event]:
    block = change.block
    match change.step:
        case "began":
            start = {"type": "content_block_start", "index": block.index}
            return [start | {"content_block": _empty(block)}]
        case "grew":
            return [_delta(block, _growth(block, change.text))]
        case _:
            signed = [_delta(block, {"type": "signature_delta", "signature": _signature(block)})]
            stop = {"type": "content_block_stop", "index": block.index}
            return [*(signed if block.kind == "reasoning" else []), stop]


def _delta(block: Block, delta: Event) -> Event:
    return {"type": "content_block_delta", "index": block.index, "delta": delta}


def _empty(block: Block) -> Event:
    match block.kind:
        case "call":
            return {"type": "tool_use", "id": block.call_id, "name": block.name, "input": {}}
        case "reasoning":
            return {"type": "thinking", "thinking": "", "signature": ""}
        case _:
            return {"type": "text", "text": ""}


def _growth(block: Block, text: str) -> Event:
    match block.kind:
        case "call":
            return {"type": "input_json_delta", "partial_json": text}
        case "reasoning":
            return {"type": "thinking_delta", "thinking": text}
        case _:
            return {"type": "text_delta", "text": text}


def _content(block: Block) -> Event:
    match block.kind:
        case "call":
            return _empty(block) | {"input": _arguments(block.text)}
        case "reasoning":
            return _empty(block) | {"thinking": block.text, "signature": _signature(block)}
        case _:
            return {"type": "text", "text": block.text}


def _arguments(text: str) -> dict[str, Any]:
    """The arguments of a call; none when its JSON was cut off."""
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}


def _signature(block: Block) -> str:
    """Clients keep thoughts only with a signature; this one just names the thought."""
    return hashlib.sha256(block.text.encode()).hexdigest()
