"""Chat completions, whole and in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rtp_core.api import TokenLogprob
from rtp_core.errors import RequestError
from rtp_core.server import sse
from rtp_core.server.errors import error_object
from rtp_core.server.generation import Piece
from rtp_core.server.plan import Outcome
from rtp_core.server.rendering import Telling

CHUNK = "chat.completion.chunk"


@dataclass(frozen=True, slots=True)
class ChatRenderer:
    """Tells one chat completion."""

    wire: ClassVar[sse.Wire] = sse.COMPLETIONS

    telling: Telling

    def opening(self) -> list[dict[str, Any]]:
        """The role of every choice; ids of the prompt come with the first."""
        chunks = [
            self._chunk(choice, {"role": "assistant", "content": ""})
            for choice in range(self.telling.num_choices)
        ]
        if self.telling.wants_token_ids:
            chunks[0]["prompt_token_ids"] = self.telling.requests[0].prompt_token_ids
        return chunks

    def events(self, piece: Piece) -> list[dict[str, Any]]:
        """A chunk with what is new, and one with the reason of the end."""
        delta = piece.delta
        chunks: list[dict[str, Any]] = []
        extra = self._extra(delta.token_ids, delta.logprobs)
        if delta.text or extra:
            content = {"content": delta.text} if delta.text else {}
            chunks.append(self._chunk(piece.choice, content, **extra))
        if delta.finish_reason is not None:
            chunks.append(
                self._chunk(
                    piece.choice,
                    {},
                    finish_reason=delta.finish_reason.value,
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
        }
        if self.telling.wants_token_ids:
            answer["prompt_token_ids"] = self.telling.requests[0].prompt_token_ids
        return answer

    def _chunk(self, choice: int, delta: dict[str, Any], **more: Any) -> dict[str, Any]:
        fields = {"index": choice, "delta": delta, "logprobs": None, "finish_reason": None}
        return self.telling.chunk(CHUNK, {**fields, **more})

    def _choice(self, outcome: Outcome) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "index": outcome.choice,
            "message": {"role": "assistant", "content": outcome.text, "refusal": None},
            "logprobs": None,
            "finish_reason": outcome.finish_reason,
            "stop_reason": outcome.stop_reason,
        }
        return {**fields, **self._extra(outcome.token_ids, outcome.logprobs)}

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
