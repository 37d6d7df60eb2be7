"""Results in the shape vLLM's users know."""

from __future__ import annotations

from dataclasses import dataclass, field

from rtp_core.api import FinishReason, Request, RequestTiming, TokenEvent, TokenLogprob
from rtp_core.text.output import TextAssembler
from rtp_core.text.tokenizer import Tokenizer


@dataclass(slots=True)
class CompletionOutput:
    """One choice. `logprobs` has one entry a token if they were asked for."""

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclass(slots=True)
class RequestOutput:
    """One prompt with its choices; `metrics` holds the stations of the last choice to end.

    `prompt_logprobs` has one entry a token of the prompt if they were asked for, None first.
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: tuple[int, ...]
    outputs: list[CompletionOutput]
    finished: bool = False
    num_cached_tokens: int = 0
    metrics: RequestTiming | None = None
    prompt_logprobs: list[TokenLogprob | None] | None = None


class OutputBuilder:
    """Collects a request's events into its RequestOutput."""

    def __init__(self, tokenizer: Tokenizer, request: Request, prompt: str | None) -> None:
        sampling = request.sampling
        self.output = RequestOutput(
            request.request_id,
            prompt,
            request.prompt_token_ids,
            [CompletionOutput(index) for index in range(sampling.n)],
            prompt_logprobs=None if sampling.prompt_logprobs is None else [None],
        )
        self._assemblers = [
            TextAssembler(tokenizer, sampling, request.prompt_token_ids) for _ in range(sampling.n)
        ]
        self._open = set(range(sampling.n))

    @property
    def finished(self) -> bool:
        """True when every choice has ended."""
        return not self._open

    def ended(self, choice: int) -> bool:
        """True when this choice needs no further tokens."""
        return choice not in self._open

    def feed(self, event: TokenEvent) -> str:
        """Take an event; returns the new text of its choice."""
        if event.choice not in self._open:
            return ""
        delta = self._assemblers[event.choice].feed(event)
        choice = self.output.outputs[event.choice]
        choice.text += delta.text
        choice.token_ids.extend(delta.token_ids)
        if delta.logprobs is not None:
            choice.logprobs = [*(choice.logprobs or []), *delta.logprobs]
        if self.output.prompt_logprobs is not None:
            self.output.prompt_logprobs.extend(event.prompt_logprobs)
        if event.choice == 0:
            self.output.num_cached_tokens = event.num_cached_tokens
        if event.timing is not None:
            self.output.metrics = event.timing
        if delta.finish_reason is not None:
            self._end(choice, delta.finish_reason, delta.stop_reason)
        return delta.text

    def _end(
        self, choice: CompletionOutput, reason: FinishReason, stop_reason: int | str | None
    ) -> None:
        choice.finish_reason = reason.value
        choice.stop_reason = stop_reason
        self._open.discard(choice.index)
        self.output.finished = not self._open
