"""From the engine's token events to what a client sees."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from rtp_core.api import (
    AnswerEvent,
    ContentDelta,
    FinishReason,
    SamplingParams,
    TokenEvent,
    TokenLogprob,
    ToolStart,
)
from rtp_core.text.answer_reader import AnswerReader, append
from rtp_core.text.detokenizer import make_detokenizer
from rtp_core.text.stop_strings import StopStrings
from rtp_core.text.tokenizer import Tokenizer


class TextDelta(msgspec.Struct, frozen=True):
    """What one event adds to one choice. `finish_reason` set = nothing more will come.

    `events` tell thoughts, text and calls of tools in their order; `text` is the content
    among them. `stop_reason` is the stop string or stop token id that ended the choice.
    `logprobs` has one entry a token of `token_ids`, or is None; `num_reasoning` of the tokens
    were thoughts.
    """

    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    events: tuple[AnswerEvent, ...] = ()
    num_reasoning: int = 0


class TextAssembler:
    """Text, ids and log-probabilities of one choice, cut at stop strings.

    The tokens end with the one that completes a stop string, wherever it stands in an event.
    As with vLLM, the text of a stop token is left out unless `include_stop_str_in_output`.
    With a `reader`, stop strings count in content only, never in thoughts or calls, nor
    across them; a call beyond the reader's limit ends the choice as a stop string would.
    Without stop strings and reader nothing is looked for, and tokens are taken all at once.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        sampling: SamplingParams,
        prompt_token_ids: Sequence[int],
        reader: AnswerReader | None = None,
    ) -> None:
        self._sampling = sampling
        self._reader = reader
        self._num_tokens = 0
        self._finished = False
        self._is_plain = reader is None and not sampling.stop
        self._stops = StopStrings(sampling.stop, include=sampling.include_stop_str_in_output)
        self._detokenizer = make_detokenizer(
            tokenizer,
            skip_special_tokens=sampling.skip_special_tokens,
            prompt_token_ids=prompt_token_ids,
            shown=frozenset() if reader is None else reader.shown,
        )

    def feed(self, event: TokenEvent) -> TextDelta:
        """Take the next event of this choice; events after its end give an empty delta."""
        if self._finished:
            return TextDelta()
        if self._is_plain and event.finish_reason is None:
            text = self._detokenizer.push(event.token_ids)
            events = (ContentDelta(text),) if text else ()
            return TextDelta(text, event.token_ids, event.logprobs, events=events)
        told = _Told()
        for position, token_id in enumerate(event.token_ids[: self._num_visible(event)], start=1):
            self._num_tokens += 1
            self._take(self._read(self._detokenizer.push((token_id,))), told)
            told.num_reasoning += self._reader is not None and self._reader.thinking
            if told.ended:
                return self._delta(event, told, position)
        self._num_tokens += len(event.token_ids) - self._num_visible(event)
        if event.finish_reason is None:
            return self._delta(event, told)
        self._take(self._read(self._detokenizer.finish()), told)
        if self._reader is not None:
            self._take(self._reader.end(), told)
        told.add(ContentDelta(self._stops.flush()))
        return self._delta(event, told, len(event.token_ids))

    def _num_visible(self, event: TokenEvent) -> int:
        """Tokens of the event that have a text: all but the token that stopped the engine.

        Where a grammar was complete none did, and there is no `stop_reason`.
        """
        stopped = event.finish_reason is FinishReason.STOP and event.stop_reason is not None
        hidden = stopped and not self._sampling.include_stop_str_in_output
        return max(0, len(event.token_ids) - hidden)

    def _read(self, text: str) -> Sequence[AnswerEvent]:
        if self._reader is not None:
            return self._reader.feed(text)
        return (ContentDelta(text),)

    def _take(self, events: Iterable[AnswerEvent], told: _Told) -> None:
        """Tell events as far as a stop string or a call too many."""
        for event in events:
            if told.ended:
                return
            if isinstance(event, ContentDelta):
                armed = self._num_tokens >= self._sampling.min_tokens
                result = self._stops.feed(event.text, armed=armed)
                told.add(ContentDelta(result.text))
                told.end(result.matched)
                continue
            told.add(ContentDelta(self._stops.flush()))
            if self._reader is not None and self._reader.is_too_many(event):
                told.ended = True
            else:
                told.add(event)

    def _delta(self, event: TokenEvent, told: _Told, num_tokens: int | None = None) -> TextDelta:
        """The event's first `num_tokens` tokens; a matched stop string overrides its end."""
        reason = FinishReason.STOP if told.ended else event.finish_reason
        self._finished = reason is not None
        return TextDelta(
            text=told.text,
            token_ids=event.token_ids[:num_tokens],
            logprobs=None if event.logprobs is None else event.logprobs[:num_tokens],
            finish_reason=reason,
            stop_reason=told.matched if told.ended else event.stop_reason,
            events=tuple(told.events),
            num_reasoning=told.num_reasoning,
        )


class _Told:
    """What one event of the engine adds; neighbours of a kind are joined."""

    def __init__(self) -> None:
        self.events: list[AnswerEvent] = []
        self.matched: str | None = None
        self.ended = False
        self.num_reasoning = 0

    @property
    def text(self) -> str:
        return "".join(one.text for one in self.events if isinstance(one, ContentDelta))

    def add(self, event: AnswerEvent) -> None:
        if isinstance(event, ToolStart) or event.text:
            append(self.events, event)

    def end(self, matched: str | None) -> None:
        """A stop string may have matched."""
        if matched is not None:
            self.matched, self.ended = matched, True
