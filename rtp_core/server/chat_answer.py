"""Chat completions, whole and in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rtp_core.api import (
    AnswerEvent,
    ContentDelta,
    FinishReason,
    ReasoningDelta,
    TokenLogprob,
    ToolArguments,
    ToolStart,
)
from rtp_core.errors import RequestError
from rtp_core.server import sse
from rtp_core.server.errors import error_object
from rtp_core.server.generation import Piece
from rtp_core.server.plan import Outcome
from rtp_core.server.rendering import Telling, TextChunks

CHUNK = "chat.completion.chunk"


@dataclass(frozen=True, slots=True)
class Manner:
    """Under which names thoughts are told, and whether the client named the tool to call."""

    reasoning: tuple[str, ...] = ("reasoning",)
    named_call: bool = False


@dataclass(slots=True)
class ChatRenderer:
    """Tells one chat completion. `callers` are the choices that have called a tool."""

    wire: ClassVar[sse.Wire] = sse.COMPLETIONS

    telling: Telling
    manner: Manner = field(default_factory=Manner)
    callers: set[int] = field(default_factory=set)
    _plain: TextChunks | None = field(init=False)

    def __post_init__(self) -> None:
        plain = TextChunks(self.wire, lambda choice, text: self._chunk(choice, {"content": text}))
        self._plain = plain if self.telling.is_plain else None

    def opening(self) -> list[dict[str, Any]]:
        """The role of every choice; ids of the prompt come with the first."""
        chunks = [
            self._chunk(choice, {"role": "assistant", "content": ""})
            for choice in range(self.telling.num_choices)
        ]
        if self.telling.wants_token_ids:
            chunks[0]["prompt_token_ids"] = self.telling.requests[0].prompt_token_ids
        return chunks

    def frame(self, piece: Piece) -> bytes:
        """As plan.Renderer."""
        delta = piece.delta
        if self._plain is not None and delta.finish_reason is None and len(delta.events) == 1:
            (event,) = delta.events
            if isinstance(event, ContentDelta):
                return self._plain.frame(piece.choice, event.text)
        return self.wire.encode(self.events(piece))

    def events(self, piece: Piece) -> list[dict[str, Any]]:
        """A chunk with what is new, and one with the reason of the end."""
        delta = piece.delta
        told = [one for event in delta.events if (one := self._told(piece.choice, event))]
        extra = self._extra(delta.token_ids, delta.logprobs)
        if extra and not told:
            told.append({})
        chunks: list[dict[str, Any]] = []
        for content in told:
            chunks.append(self._chunk(piece.choice, content, **extra))
            extra = {}
        if delta.finish_reason is not None:
            chunks.append(
                self._chunk(
                    piece.choice,
                    {},
                    finish_reason=self._reason(piece.choice, delta.finish_reason),
                    stop_reason=delta.stop_reason,
                )
            )
        return chunks

    def closing(self) -> list[dict[str, Any]]:
        """The usage of the request, if it was asked for."""
        return self.telling.last_chunks(CHUNK)

    def failed(self, error: RequestError) -> list[dict[str, Any]]:
        """The error in place of what was to come."""
        return [error_object(error)]

    def whole(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """An answer with all choices."""
        answer = {
            **self.telling.head("chat.completion"),
            "choices": [self._choice(outcome) for outcome in outcomes],
            "usage": self.telling.account.usage(),
            **self.telling.prompt_logprobs(outcomes),
        }
        if self.telling.wants_token_ids:
            answer["prompt_token_ids"] = self.telling.requests[0].prompt_token_ids
        return answer

    def _chunk(self, choice: int, delta: dict[str, Any], **more: Any) -> dict[str, Any]:
        fields = {"index": choice, "delta": delta, "logprobs": None, "finish_reason": None}
        return self.telling.chunk(CHUNK, {**fields, **more})

    def _told(self, choice: int, event: AnswerEvent) -> dict[str, Any]:
        """The delta for an event; empty when the client is not to see it."""
        match event:
            case ContentDelta(text=text):
                return {"content": text}
            case ReasoningDelta(text=text):
                return dict.fromkeys(self.manner.reasoning, text)
            case ToolStart(index=index, id=call_id, name=name):
                self.callers.add(choice)
                function = {"name": name, "arguments": ""}
                call = {"index": index, "id": call_id, "type": "function", "function": function}
                return {"tool_calls": [call]}
            case ToolArguments(index=index, text=text):
                return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}

    def _reason(self, choice: int, reason: FinishReason | None) -> str | None:
        """As OpenAI says it: calls are a reason of their own unless the client named the tool."""
        if reason is FinishReason.STOP and choice in self.callers and not self.manner.named_call:
            return "tool_calls"
        return None if reason is None else reason.value

    def _choice(self, outcome: Outcome) -> dict[str, Any]:
        message = self._message(outcome)
        fields: dict[str, Any] = {
            "index": outcome.choice,
            "message": message,
            "logprobs": None,
            "finish_reason": self._reason(outcome.choice, outcome.finish_reason),
            "stop_reason": outcome.stop_reason,
        }
        return {**fields, **self._extra(outcome.token_ids, outcome.logprobs)}

    def _message(self, outcome: Outcome) -> dict[str, Any]:
        """What a client makes of the deltas of a stream."""
        thoughts: list[str] = []
        calls: list[dict[str, Any]] = []
        for event in (event for piece in outcome.pieces for event in piece.delta.events):
            match event:
                case ReasoningDelta(text=text):
                    thoughts.append(text)
                case ToolStart(id=call_id, name=name):
                    self.callers.add(outcome.choice)
                    function = {"name": name, "arguments": ""}
                    calls.append({"id": call_id, "type": "function", "function": function})
                case ToolArguments(index=index, text=text):
                    calls[index]["function"]["arguments"] += text
                case ContentDelta():
                    pass
        content = None if calls and not outcome.text else outcome.text
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if thoughts:
            message |= dict.fromkeys(self.manner.reasoning, "".join(thoughts))
        return {**message, "tool_calls": calls} if calls else message

    def _extra(
        self, token_ids: Sequence[int], logprobs: Sequence[TokenLogprob] | None
    ) -> dict[str, Any]:
        """Fields about tokens; empty when none were asked for or none came."""
        telling = self.telling
        extra: dict[str, Any] = {}
        if logprobs and telling.wants_logprobs:
            extra["logprobs"] = {
                "content": [telling.names.chat_entry(one) for one in logprobs],
                "refusal": None,
            }
        if token_ids and telling.wants_token_ids:
            extra["token_ids"] = token_ids
        return extra
