"""Who gets how many tokens of a step."""

from __future__ import annotations

from collections.abc import Sequence as Items

from rtp_core.api import TO_BE_DRAWN, Clock, EngineLimits, PlanRow, SchedulingPolicy
from rtp_core.kv.cache import Match
from rtp_core.scheduling.batch import Batch
from rtp_core.scheduling.counters import SchedulerCounters
from rtp_core.scheduling.sequence import Sequence
from rtp_core.scheduling.waiting import Waiting


class Planner:
    """Decoding rows first, then prefills, then admissions, under one token budget.

    Drafts share what is left when every running sequence has its next token. When blocks run
    out, drafts are cut first, then the policy's victim gives way.
    """

    def __init__(
        self,
        policy: SchedulingPolicy,
        limits: EngineLimits,
        clock: Clock,
        batch: Batch,
        waiting: Waiting,
    ) -> None:
        self.counters = SchedulerCounters()
        self._policy = policy
        self._limits = limits
        self._clock = clock
        self._batch = batch
        self._waiting = waiting
        self._cache = batch.cache

    def plan(self) -> dict[Sequence, PlanRow]:
        """Final rows of the next step by sequence; empty when nothing can run."""
        rows: dict[Sequence, PlanRow] = {}
        preemptions = self.counters.preemptions
        budget = self._plan_running(rows)
        if self.counters.preemptions == preemptions:  # else blocks are short: admit nobody
            self._admit(rows, budget)
        return rows

    def _plan_running(self, rows: dict[Sequence, PlanRow]) -> int:
        """Rows of sequences that hold blocks; returns the budget left."""
        budget = self._limits.max_num_batched_tokens
        spare = budget - len(self._batch)
        running = list(self._batch)
        if any(map(_prefilling, running)):
            running.sort(key=_prefilling)
        for sequence in running:
            if budget <= 0:
                break
            if sequence.in_batch and self._can_go_on(sequence, budget):
                row = self._plan_one(rows, sequence, budget, spare)
                if row is not None:
                    budget -= len(row.token_ids)
                    spare -= row.num_drafts
        return budget

    def _can_go_on(self, sequence: Sequence, budget: int) -> bool:
        """Unless its last token is being drawn, or what it may compute ends at no boundary.

        Which tokens a grammar lets follow is known when the one before is: nothing is planned
        ahead for such a sequence.
        """
        if sequence.draws_its_last or (sequence.num_pending and sequence.constrained):
            return False
        start = sequence.num_computed
        return self._chunk_end(start, sequence.num_known, budget) > start

    def _chunk_end(self, start: int, length: int, budget: int) -> int:
        """As many tokens as the budget allows, or fewer: a part of a prompt ends at a boundary."""
        end = min(length, start + budget)
        return end if end == length else end - end % self._limits.chunk_alignment

    def _plan_one(
        self, rows: dict[Sequence, PlanRow], sequence: Sequence, budget: int, spare: int
    ) -> PlanRow | None:
        """Enter the sequence's row, at the cost of victims; None if it was one itself."""
        row = self._row(sequence, budget, spare)
        while row is None:
            if self._preempt(rows) is sequence:
                return None
            row = self._row(sequence, budget, spare)
        rows[sequence] = row
        return row

    def _row(self, sequence: Sequence, budget: int, spare: int) -> PlanRow | None:
        """As many tokens as budget and blocks allow; None when not even one block is left."""
        tokens, start, blocks = sequence.token_ids, sequence.num_computed, sequence.blocks
        if self._cache.has_windows:  # steps launched before have read what is out of sight now
            self._cache.drop_outside_windows(blocks, start)
        length = sequence.num_known
        end = self._chunk_end(start, length, budget)
        known = tokens[start:end] if start < len(tokens) else [TO_BE_DRAWN]
        drafts: Items[int] = ()
        if sequence.drafts and end == length:
            drafts = sequence.drafts[: max(0, min(spare, budget - len(known)))]
        while end + len(drafts) > blocks.capacity:
            if self._cache.try_grow(blocks, end + len(drafts)):
                break
            if not drafts:
                return None
            drafts = drafts[:-1]
        return PlanRow(
            sequence.sequence_id,
            [*known, *drafts] if drafts else known,
            start,
            len(drafts),
            end == length,
            blocks.tables,
        )

    def _preempt(self, rows: dict[Sequence, PlanRow]) -> Sequence:
        """Take the blocks of the policy's victim; what it has computed stays findable."""
        running = {one.sequence_id: one for one in self._batch}
        victim = running[self._policy.victim([one.queued() for one in running.values()])]
        rows.pop(victim, None)
        self._batch.leave(victim)
        victim.preemptions += 1
        self.counters.preemptions += 1
        self._waiting.add(victim)
        return victim

    def _admit(self, rows: dict[Sequence, PlanRow], budget: int) -> None:
        room = self._limits.max_num_seqs - len(self._batch)
        if not self._waiting.num_queued or budget <= 0 or room <= 0:
            return
        admitted: list[str] = []
        now = self._clock.now_s()
        for sequence in self._waiting.in_order(now, self._cached_tokens):
            match = self._match(sequence)
            if not sequence.scores_prompt and self._batch.should_wait(sequence, match):
                continue
            if not self._fits(match, sequence) or not self._may_start(match, sequence, budget):
                break
            budget -= self._enter(rows, sequence, match, budget)
            admitted.append(sequence.sequence_id)
            if sequence.preemptions == 0:
                self._count_admission(sequence, now)
            if budget <= 0 or len(admitted) >= room:
                break
        for sequence_id in admitted:
            self._waiting.remove(sequence_id)

    def _fits(self, match: Match, sequence: Sequence) -> bool:
        """The whole prompt above the watermark, unless nobody else holds blocks."""
        reserve = len(self._batch) > 0
        return self._cache.fits(match, len(sequence.token_ids), reserve=reserve)

    def _may_start(self, match: Match, sequence: Sequence, budget: int) -> bool:
        """Whether a first chunk fits that ends at a boundary."""
        start = match.num_blocks * self._cache.block_size
        return self._chunk_end(start, len(sequence.token_ids), budget) > start

    def _enter(
        self, rows: dict[Sequence, PlanRow], sequence: Sequence, match: Match, budget: int
    ) -> int:
        """Join the batch with a first chunk; returns its length."""
        self._batch.join(sequence, match)
        row = self._row(sequence, budget, 0)
        if row is None:
            raise RuntimeError(f"no blocks for {sequence.sequence_id} although it holds them")
        rows[sequence] = row
        return len(row.token_ids)

    def _count_admission(self, sequence: Sequence, now: float) -> None:
        sequence.scheduled_s = now
        sequence.num_cached = sequence.num_computed
        self.counters.prompt_tokens += sequence.num_prompt
        if self._cache.prefix_caching:
            self.counters.prefix_queries += sequence.num_prompt
            self.counters.prefix_hits += sequence.num_computed

    def _match(self, sequence: Sequence) -> Match:
        """What is cached; nothing of a prompt whose tokens are to be scored, which takes logits."""
        reuse = not sequence.scores_prompt
        return self._cache.lookup(sequence.blocks, sequence.token_ids, reuse=reuse)

    def _cached_tokens(self, sequence: Sequence) -> int:
        match = self._match(sequence)
        return match.num_blocks * self._cache.block_size


def _prefilling(sequence: Sequence) -> bool:
    return len(sequence.token_ids) - sequence.num_computed > 1
