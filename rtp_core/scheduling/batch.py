"""Sequences that hold blocks: how they join, move on and leave."""

from __future__ import annotations

from collections.abc import Iterator

from rtp_core.api import PlanRow, SequenceStart
from rtp_core.kv.cache import KVCache, Match
from rtp_core.scheduling.pending import PendingBlocks
from rtp_core.scheduling.sequence import Sequence


class Batch:
    """The running sequences in order of admission, and what the runner must hear of them."""

    def __init__(self, cache: KVCache) -> None:
        self.cache = cache
        self._running: dict[str, Sequence] = {}
        self._pending = PendingBlocks()
        self._started: list[SequenceStart] = []
        self._released: list[str] = []

    def __len__(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._running.values())

    def get(self, sequence_id: str) -> Sequence | None:
        """A running sequence."""
        return self._running.get(sequence_id)

    def should_wait(self, sequence: Sequence, match: Match) -> bool:
        """Whether another one computes now what this sequence lacks."""
        return self._pending.computed_elsewhere(sequence.blocks.chain, match.num_blocks)

    def join(self, sequence: Sequence, match: Match) -> None:
        """Hold the match and reserve the rest of what is known; `KVCache.fits` said yes."""
        blocks = sequence.blocks
        self.cache.acquire(blocks, match)
        if not self.cache.reserve(blocks, len(sequence.token_ids)):
            raise RuntimeError(f"no blocks for {sequence.sequence_id} although they were counted")
        self._pending.claim(sequence.sequence_id, blocks.chain[match.num_blocks :])
        sequence.num_computed = match.num_blocks * self.cache.block_size
        sequence.in_batch = True
        self._running[sequence.sequence_id] = sequence
        self._started.append(sequence.start())

    def launch(self, sequence: Sequence, row: PlanRow) -> None:
        """The row is final: count it as computed. Drafts are not known tokens."""
        sequence.drafts = ()
        sequence.num_computed = row.start + len(row.token_ids) - row.num_drafts
        sequence.num_pending += row.samples

    def publish(self, sequence: Sequence, num_computed: int) -> None:
        """Offer the full blocks below `num_computed`: the steps that filled them are done."""
        blocks = sequence.blocks
        before = blocks.num_published
        if num_computed - before * self.cache.block_size >= self.cache.block_size:
            self.cache.publish(blocks, sequence.token_ids, num_computed)
            if self._pending:
                done = blocks.chain[before : blocks.num_published]
                self._pending.settle(sequence.sequence_id, done)

    def leave(self, sequence: Sequence) -> None:
        """Give blocks back; the runner hears of it with the next plan."""
        sequence_id, blocks = sequence.sequence_id, sequence.blocks
        del self._running[sequence_id]
        self._pending.settle(sequence_id, blocks.chain[blocks.num_published :])
        self.cache.release(blocks)
        sequence.in_batch = False
        sequence.num_pending = 0
        sequence.drafts = ()
        self._started = [one for one in self._started if one.sequence_id != sequence_id]
        self._released.append(sequence_id)

    def take_changes(self) -> tuple[tuple[SequenceStart, ...], tuple[str, ...]]:
        """Sequences that joined and ids that left since the last call."""
        changes = tuple(self._started), tuple(self._released)
        self._started.clear()
        self._released.clear()
        return changes
