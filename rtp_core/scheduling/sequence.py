"""One choice of one request, as the scheduler sees it."""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass, field

from rtp_core.api import QueuedRequest, Request, RequestTiming, SequenceStart
from rtp_core.kv.cache import SequenceBlocks

SEED_MASK = 2**64 - 1


@dataclass(slots=True, eq=False)
class Sequence:
    """`num_computed` tokens have valid KV; it chases ``len(token_ids)``.

    `limit` is the length at which the sequence ends; `waiting_for` are conditions not yet
    met; `drafts` are proposals for the next step.
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
    num_computed: int = 0
    num_cached: int = 0
    drafts: Items[int] = ()
    waiting_for: set[str] = field(default_factory=set)
    scheduled_s: float = 0.0
    first_token_s: float = 0.0
    preemptions: int = 0

    @property
    def num_output(self) -> int:
        """Tokens generated so far."""
        return len(self.token_ids) - self.num_prompt

    @property
    def decoding(self) -> bool:
        """True when only the last token is left to compute."""
        return len(self.token_ids) - self.num_computed == 1 and self.num_output > 0

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
