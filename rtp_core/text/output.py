"""From the engine's token events to the text a client sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rtp_core.api import FinishReason, SamplingParams, TokenEvent, TokenLogprob
from rtp_core.text.detokenizer import make_detokenizer
from rtp_core.text.stop_strings import StopStrings
from rtp_core.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class TextDelta:
    """What one event adds to one choice. `finish_reason` set = nothing more will come.

    `stop_reason` is the stop string or stop token id that ended the choice. `logprobs` has
    one entry a token of `token_ids`, or is None.
    """

    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None


class TextAssembler:
    """Text, ids and log-probabilities of one choice, cut at stop strings.

    The tokens end with the one that completes a stop string, wherever it stands in an event.
    As with vLLM, the text of a stop token is left out unless `include_stop_str_in_output`.
    """

    def __init__(
        self, tokenizer: Tokenizer, sampling: SamplingParams, prompt_token_ids: Sequence[int]
    ) -> None:
        self._sampling = sampling
        self._num_tokens = 0
        self._finished = False
        self._stops = StopStrings(sampling.stop, include=sampling.include_stop_str_in_output)
        self._detokenizer = make_detokenizer(
            tokenizer,
            skip_special_tokens=sampling.skip_special_tokens,
            prompt_token_ids=prompt_token_ids,
        )

    def feed(self, event: TokenEvent) -> TextDelta:
        """Take the next event of this choice; events after its end give an empty delta."""
        if self._finished:
            return TextDelta()
        texts: list[str] = []
        for position, token_id in enumerate(event.token_ids[: self._num_visible(event)], start=1):
            self._num_tokens += 1
            matched = self._take(self._detokenizer.push((token_id,)), texts)
            if matched is not None:
                return self._delta(event, texts, position, matched)
        self._num_tokens += len(event.token_ids) - self._num_visible(event)
        if event.finish_reason is None:
            return self._delta(event, texts)
        matched = self._take(self._detokenizer.finish(), texts)
        texts.append(self._stops.flush())
        return self._delta(event, texts, len(event.token_ids), matched)

    def _num_visible(self, event: TokenEvent) -> int:
        """Tokens of the event that have a text: all but the token that stopped the engine.

        Where a grammar was complete none did, and there is no `stop_reason`.
        """
        stopped = event.finish_reason is FinishReason.STOP and event.stop_reason is not None
        hidden = stopped and not self._sampling.include_stop_str_in_output
        return max(0, len(event.token_ids) - hidden)

    def _take(self, text: str, texts: list[str]) -> str | None:
        """Pass text through the stop strings; returns the one that matched."""
        result = self._stops.feed(text, armed=self._num_tokens >= self._sampling.min_tokens)
        texts.append(result.text)
        return result.matched

    def _delta(
        self,
        event: TokenEvent,
        texts: Sequence[str],
        num_tokens: int | None = None,
        matched: str | None = None,
    ) -> TextDelta:
        """The event's first `num_tokens` tokens; a matched stop string overrides its end."""
        reason = event.finish_reason if matched is None else FinishReason.STOP
        self._finished = reason is not None
        return TextDelta(
            text="".join(texts),
            token_ids=event.token_ids[:num_tokens],
            logprobs=None if event.logprobs is None else event.logprobs[:num_tokens],
            finish_reason=reason,
            stop_reason=event.stop_reason if matched is None else matched,
        )
