"""One choice of one request, as the scheduler sees it."""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from typing import NamedTuple

from rtp_core.api import (
    FinishReason,
    QueuedRequest,
    Request,
    RequestTiming,
    SequenceStart,
    TokenLogprob,
)
from rtp_core.kv.cache import SequenceBlocks

SEED_MASK = 2**64 - 1


class Ending(NamedTuple):
    """Why a sequence ended; the stop token or the error, if that was it."""

    reason: FinishReason
    stop_token_id: int | None = None
    error: str | None = None


@dataclass(slots=True, eq=False)
class Sequence:
    """`num_computed` tokens have valid KV, or will have when the steps launched are done.

    It chases `num_known`: the tokens, and `num_pending` more that steps in flight will draw.
    `limit` is the length at which the sequence ends; `waiting_for` are conditions not yet
    met; `drafts` are proposals for the next step; `in_batch` sequences hold blocks. Of the
    prompt's tokens after the first, `num_scored` have log-probabilities; the last are `unsent`.
    """

    sequence_id: str
    request: Request
    choice: int
    seed: int
    token_ids: list[int]
    num_prompt: int
    limit: int
    stop_ids: frozenset[int]
    blocks: SequenceBlocks
    waiting_for: set[str] = field(default_factory=set)
    in_batch: bool = False
    num_computed: int = 0
    num_pending: int = 0
    num_cached: int = 0
    drafts: Items[int] = ()
    scheduled_s: float = 0.0
    first_token_s: float = 0.0
    preemptions: int = 0
    num_scored: int = 0
    unsent: tuple[TokenLogprob, ...] = ()

    @property
    def num_known(self) -> int:
        """Tokens there are, or will be when the steps in flight are done."""
        return len(self.token_ids) + self.num_pending

    @property
    def draws_its_last(self) -> bool:
        """True when a step in flight draws the token that ends the sequence by its length."""
        return self.num_pending > 0 and self.num_known >= self.limit

    @property
    def draws_next(self) -> bool:
        """True when a step in flight draws the token after those that are known."""
        return self.num_pending == 1 and len(self.token_ids) >= self.num_prompt

    @property
    def constrained(self) -> bool:
        """True when the tokens drawn decide which may follow."""
        return self.request.sampling.masked

    @property
    def scores_prompt(self) -> bool:
        """True when tokens of the prompt are to be scored that were not yet."""
        wanted = self.choice == 0 and self.request.sampling.prompt_logprobs is not None
        return wanted and self.num_scored < self.num_prompt - 1

    @property
    def decoding(self) -> bool:
        """True when only the last token drawn is left to compute."""
        length = len(self.token_ids)
        return length - self.num_computed == 1 and length > self.num_prompt

    def accept(
        self, drawn: tuple[int, ...], complete: bool = False
    ) -> tuple[tuple[int, ...], Ending | None]:
        """Append `drawn` up to the token that ends the sequence; those tokens, and why.

        A stop id counts after `min_tokens` others. `complete`: nothing may follow `drawn`.
        """
        length, num_drawn = len(self.token_ids), len(drawn)
        if length >= self.limit:  # only the prompt was wanted
            return (), Ending(FinishReason.LENGTH)
        least = self.num_prompt + self.request.sampling.min_tokens
        ending = None
        for token in drawn:
            length += 1
            if token in self.stop_ids and length > least:
                ending = Ending(FinishReason.STOP, token)
                break
            if length >= self.limit:
                ending = Ending(FinishReason.LENGTH)
                break
        if ending is not None:
            drawn = drawn[: length - len(self.token_ids)]
        cut = len(drawn) < num_drawn
        if complete and not cut and (ending is None or ending.stop_token_id is None):
            ending = Ending(FinishReason.STOP)
        self.token_ids.extend(drawn)
        return drawn, ending

    def take_scores(self, start: int, scores: tuple[TokenLogprob, ...]) -> None:
        """Scores of the tokens behind token `start`, of which a preemption repeats some."""
        new = scores[max(0, self.num_scored - start) :]
        self.num_scored += len(new)
        self.unsent += new

    def take_unsent(self) -> tuple[TokenLogprob, ...]:
        """Scores that nobody was told yet."""
        scores, self.unsent = self.unsent, ()
        return scores

    def queued(self) -> QueuedRequest:
        """What a policy may see."""
        request = self.request
        return QueuedRequest(
            self.sequence_id,
            request.arrival_time_s,
            request.priority,
            request.tenant,
            len(self.token_ids),
            self.limit - len(self.token_ids),
        )

    def start(self) -> SequenceStart:
        """What the runner needs to draw this sequence's tokens."""
        return SequenceStart(
            self.sequence_id,
            self.request.sampling,
            self.seed,
            self.choice,
            tuple(self.token_ids),
            self.num_prompt,
        )

    def timing(self, finished_s: float) -> RequestTiming:
        """Stations of the sequence, on the engine's clock."""
        return RequestTiming(
            self.request.arrival_time_s, self.scheduled_s, self.first_token_s, finished_s
        )
