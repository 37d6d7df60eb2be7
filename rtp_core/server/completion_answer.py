"""Text completions, whole and in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rtp_core.api import Request, TokenLogprob
from rtp_core.errors import RequestError
from rtp_core.server import sse
from rtp_core.server.errors import error_object
from rtp_core.server.generation import Piece
from rtp_core.server.plan import Outcome
from rtp_core.server.rendering import Telling, TextChunks

KIND = "text_completion"


@dataclass(slots=True)
class CompletionRenderer:
    """`echoes` has the text of each prompt that is to stand before its completions, or is empty.

    `_offsets` is where the next token's text of each choice begins, for log-probabilities.
    """

    wire: ClassVar[sse.Wire] = sse.COMPLETIONS

    telling: Telling
    echoes: Sequence[str]
    _offsets: dict[int, int] = field(default_factory=dict)
    _plain: TextChunks | None = field(init=False)

    def __post_init__(self) -> None:
        plain = TextChunks(
            self.wire, lambda choice, text: self._chunk(choice, text, stop_reason=None)
        )
        self._plain = plain if self.telling.is_plain else None

    def opening(self) -> list[dict[str, Any]]:
        """The prompts, if they are echoed."""
        if not self.echoes:
            return []
        return [
            self._chunk(choice, self._echo(choice)) for choice in range(self.telling.num_choices)
        ]

    def frame(self, piece: Piece) -> bytes:
        """As plan.Renderer."""
        delta = piece.delta
        if self._plain is not None and delta.finish_reason is None and delta.text:
            return self._plain.frame(piece.choice, delta.text)
        return self.wire.encode(self.events(piece))

    def events(self, piece: Piece) -> list[dict[str, Any]]:
        """One chunk, unless the piece holds nothing to show."""
        delta = piece.delta
        extra = self._extra(piece.choice, delta.token_ids, delta.logprobs)
        if not (delta.text or extra or delta.finish_reason):
            return []
        return [
            self._chunk(
                piece.choice,
                delta.text,
                **extra,
                finish_reason=delta.finish_reason,
                stop_reason=delta.stop_reason,
            )
        ]

    def closing(self) -> list[dict[str, Any]]:
        """The usage of the request, if it was asked for."""
        return self.telling.last_chunks(KIND)

    def failed(self, error: RequestError) -> list[dict[str, Any]]:
        """The error in place of what was to come."""
        return [error_object(error)]

    def whole(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """An answer with the choices of all prompts."""
        return {
            **self.telling.head(KIND),
            "choices": [self._choice(outcome, outcomes) for outcome in outcomes],
            "usage": self.telling.account.usage(),
        }

    def _chunk(self, choice: int, text: str, **more: Any) -> dict[str, Any]:
        fields = {"index": choice, "text": text, "logprobs": None, "finish_reason": None}
        return self.telling.chunk(KIND, {**fields, **more})

    def _choice(self, outcome: Outcome, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        choice, telling = outcome.choice, self.telling
        prompt = telling.prompt_of(choice)
        request = telling.requests[prompt]
        fields: dict[str, Any] = {
            "index": choice,
            "text": self._echo(choice) + outcome.text,
            "logprobs": None,
            "finish_reason": outcome.finish_reason,
            "stop_reason": outcome.stop_reason,
            **self._extra(choice, outcome.token_ids, outcome.logprobs),
            **telling.prompt_logprobs(outcomes, prompt),
        }
        if self.echoes and telling.wants_logprobs:
            scores = outcomes[prompt * request.sampling.n].prompt_logprobs
            fields["logprobs"] = self._echoed(request, scores, fields["logprobs"])
        if telling.wants_token_ids:
            fields["prompt_token_ids"] = request.prompt_token_ids
        return fields

    def _echoed(
        self,
        request: Request,
        scores: Sequence[TokenLogprob],
        generated: dict[str, list[Any]] | None,
    ) -> dict[str, list[Any]]:
        """Entries of the prompt's tokens, then of those generated."""
        first, most = request.prompt_token_ids[0], request.sampling.logprobs or 0
        entries = self.telling.names.echo_entries(first, scores, most)
        if generated is None:
            return entries
        return {name: [*values, *generated[name]] for name, values in entries.items()}

    def _echo(self, choice: int) -> str:
        return self.echoes[self.telling.prompt_of(choice)] if self.echoes else ""

    def _extra(
        self, choice: int, token_ids: Sequence[int], logprobs: Sequence[TokenLogprob] | None
    ) -> dict[str, Any]:
        """Fields about tokens; empty when none were asked for or none came."""
        telling = self.telling
        extra: dict[str, Any] = {}
        if logprobs and telling.wants_logprobs:
            offset = self._offsets.get(choice, len(self._echo(choice)))
            extra["logprobs"] = telling.names.completion_entries(logprobs, offset)
            self._offsets[choice] = offset + telling.names.length(logprobs)
        if token_ids and telling.wants_token_ids:
            extra["token_ids"] = token_ids
        return extra
