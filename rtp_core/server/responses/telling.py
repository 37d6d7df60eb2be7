"""Responses, whole and as a series of events."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any, ClassVar

from rtp_core.api import FinishReason, TokenLogprob
from rtp_core.errors import RequestError
from rtp_core.server import sse
from rtp_core.server.blocks import Block, Blocks, Change
from rtp_core.server.errors import error_object
from rtp_core.server.generation import Piece
from rtp_core.server.plan import Outcome
from rtp_core.server.rendering import Telling
from rtp_core.server.responses.reading import ENCRYPTED, sealed
from rtp_core.server.schema.responses import ResponsesBody

_ITEM_IDS = {"text": "msg", "reasoning": "rs", "call": "fc"}
Event = dict[str, Any]


class ResponseRenderer:
    """Tells one response."""

    wire: ClassVar[sse.Wire] = sse.RESPONSES

    def __init__(self, telling: Telling, body: ResponsesBody) -> None:
        self._telling = telling
        self._body = body
        self._blocks = Blocks()
        self._numbers = itertools.count()

    def opening(self) -> list[Event]:
        """The response as it begins."""
        response = self._response("in_progress")
        return [
            self._event("response.created", response=response),
            self._event("response.in_progress", response=response),
        ]

    def frame(self, piece: Piece) -> bytes:
        """As plan.Renderer."""
        return self.wire.encode(self.events(piece))

    def events(self, piece: Piece) -> list[Event]:
        """What the piece changes."""
        return [event for change in self._blocks.feed(piece) for event in self._told(change)]

    def closing(self) -> list[Event]:
        """The whole response."""
        response = self._finished()
        return [self._event(f"response.{response['status']}", response=response)]

    def failed(self, error: RequestError) -> list[Event]:
        """The response as far as it came, and why it came no further."""
        said = error_object(error)["error"]
        code = "rate_limit_exceeded" if error.status == 429 else "server_error"
        failure = {"code": code, "message": said["message"]}
        return [self._event("response.failed", response=self._response("failed", error=failure))]

    def whole(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """The response when it is not streamed."""
        for piece in outcomes[0].pieces:
            self._blocks.feed(piece)
        return self._finished()

    def _event(self, kind: str, **fields: Any) -> Event:
        return {"type": kind, **fields, "sequence_number": next(self._numbers)}

    def _finished(self) -> dict[str, Any]:
        if self._blocks.finish_reason is FinishReason.LENGTH:
            return self._response("incomplete", incomplete={"reason": "max_output_tokens"})
        return self._response("completed")

    def _response(
        self, status: str, *, error: Any = None, incomplete: Any = None
    ) -> dict[str, Any]:
        """OpenAI's object: what was asked, and what came of it so far."""
        telling = self._telling
        running = status == "in_progress"
        return {
            "id": f"resp_{telling.identity}",
            "object": "response",
            "created_at": telling.created,
            "status": status,
            "completed_at": int(time.time()) if status == "completed" else None,
            "error": error,
            "incomplete_details": incomplete,
            "model": telling.model,
            "output": [self._item(block, "completed") for block in self._blocks.blocks],
            "usage": None if running else self._usage(),
            **asked(self._body, self._telling),
        }

    def _usage(self) -> dict[str, Any]:
        usage = self._telling.account.usage()
        return {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {
                "cached_tokens": usage["prompt_tokens_details"]["cached_tokens"],
                "cache_write_tokens": 0,
            },
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": usage["completion_tokens_details"],
            "total_tokens": usage["total_tokens"],
        }

    # ---- blocks

    def _told(self, change: Change) -> list[Event]:
        block = change.block
        where = {"item_id": self._item_id(block), "output_index": block.index}
        if block.kind != "call":
            where["content_index"] = 0
        match change.step:
            case "began":
                return self._began(block, where)
            case "grew":
                heard = {"logprobs": self._entries(change.logprobs)} if block.kind == "text" else {}
                return [
                    self._event(f"{_STREAMS[block.kind]}.delta", **where, delta=change.text) | heard
                ]
            case _:
                return self._ended(block, where)

    def _began(self, block: Block, where: Event) -> list[Event]:
        item = self._item(block, "in_progress")
        part = {} if block.kind == "call" else item["content"][0]
        if block.kind != "call":
            item["content"] = []
        events = [self._event("response.output_item.added", output_index=block.index, item=item)]
        if part:
            events.append(self._event("response.content_part.added", **where, part=part))
        return events

    def _ended(self, block: Block, where: Event) -> list[Event]:
        item = self._item(block, "completed")
        said: dict[str, Any] = {"arguments": block.text, "name": block.name}
        if block.kind != "call":
            said = {"text": block.text}
        if block.kind == "text":
            said["logprobs"] = self._entries(block.logprobs)
        events = [self._event(f"{_STREAMS[block.kind]}.done", **where, **said)]
        if block.kind != "call":
            part = item["content"][0]
            events.append(self._event("response.content_part.done", **where, part=part))
        done = self._event("response.output_item.done", output_index=block.index, item=item)
        return [*events, done]

    def _item_id(self, block: Block) -> str:
        return f"{_ITEM_IDS[block.kind]}_{self._telling.identity}_{block.index}"

    def _item(self, block: Block, status: str) -> dict[str, Any]:
        status = status if block.complete else "incomplete"
        item: dict[str, Any] = {"id": self._item_id(block), "status": status}
        match block.kind:
            case "call":
                item |= {"type": "function_call", "call_id": block.call_id}
                return item | {"name": block.name, "arguments": block.text}
            case "reasoning":
                thought = {"type": "reasoning_text", "text": block.text}
                if ENCRYPTED in (self._body.include or ()):
                    item["encrypted_content"] = sealed(block.text)
                return item | {"type": "reasoning", "summary": [], "content": [thought]}
            case _:
                part: dict[str, Any] = {"type": "output_text", "text": block.text}
                part |= {"annotations": [], "logprobs": self._entries(block.logprobs)}
                return item | {"type": "message", "role": "assistant", "content": [part]}

    def _entries(self, logprobs: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
        names = self._telling.names
        return [names.chat_entry(one) for one in logprobs]


_STREAMS = {
    "text": "response.output_text",
    "reasoning": "response.reasoning_text",
    "call": "response.function_call_arguments",
}


def asked(body: ResponsesBody, telling: Telling) -> dict[str, Any]:
    """What an answer repeats of the request; nothing of it was stored."""
    sampling = telling.requests[0].sampling
    text = {"type": "text"} if body.text is None or body.text.format is None else body.text.format
    reasoning = body.reasoning
    return {
        "background": False,
        "store": False,
        "previous_response_id": None,
        "instructions": body.instructions,
        "metadata": body.metadata or {},
        "tools": body.tools or [],
        "tool_choice": "auto" if body.tool_choice is None else body.tool_choice,
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_logprobs": body.top_logprobs or 0,
        "text": {"format": text},
        "reasoning": {"effort": reasoning.effort if reasoning else None, "summary": None},
        "truncation": body.truncation or "disabled",
        "service_tier": "default",
    }
