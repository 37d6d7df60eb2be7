"""One rule: computed tokens chase known tokens under a token budget.

Prefill, chunked prefill, decode, verification of drafts and a partial prefix hit are the same
case: a sequence has known tokens whose KV is not computed yet, and gets as many of them into
the step as budget and blocks allow. Decoding rows come first, admissions last.

Blocks are offered to other requests when the step that fills them is launched. When blocks
run out, drafts are cut first, then the policy's victim is preempted by recompute: its tokens
stay (and were streamed), its full blocks stay findable, and it waits with its arrival time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence as Items
from dataclasses import dataclass, field

from rtp_core.api import (
    Clock,
    Draft,
    DraftRow,
    EngineLimits,
    FinishReason,
    PlanRow,
    Request,
    RowResult,
    SchedulingPolicy,
    SequenceStart,
    StepPlan,
    StepResult,
    TokenEvent,
)
from rtp_core.errors import RequestError
from rtp_core.kv.cache import KVCache, Match
from rtp_core.scheduling.admission import expand
from rtp_core.scheduling.pending import PendingBlocks
from rtp_core.scheduling.sequence import Sequence


@dataclass(slots=True)
class SchedulerCounters:
    """Since start; tokens unless named."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    preemptions: int = 0
    finished: Counter[str] = field(default_factory=Counter)


class Scheduler:
    """Owns every sequence from `add` to its one end. Plain Python, single-threaded."""

    def __init__(
        self,
        policy: SchedulingPolicy,
        cache: KVCache,
        limits: EngineLimits,
        clock: Clock,
        eos_token_ids: frozenset[int],
    ) -> None:
        self.cache = cache
        self.counters = SchedulerCounters()
        self._policy = policy
        self._limits = limits
        self._clock = clock
        self._eos = eos_token_ids
        self._requests: dict[str, list[str]] = {}
        self._running: dict[str, Sequence] = {}
        self._waiting: dict[str, Sequence] = {}
        self._blocked: dict[str, Sequence] = {}
        self._pending = PendingBlocks()
        self._events: list[TokenEvent] = []
        self._started: list[SequenceStart] = []
        self._released: list[str] = []
        self._step_id = 0

    # ---- what comes in

    @property
    def num_running(self) -> int:
        """Sequences that hold blocks."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Sequences that wait for admission or for a condition."""
        return len(self._waiting) + len(self._blocked)

    @property
    def has_work(self) -> bool:
        """True while a step can make progress or events are to be taken."""
        return bool(self._running or self._waiting or self._events)

    def add(self, request: Request) -> None:
        """Queue every choice. Raises RequestError when it is refused; nothing remains then."""
        if request.request_id in self._requests:
            raise RequestError("request_id", f"request {request.request_id!r} is under way")
        sequences = expand(request, self.cache, self._limits, self._eos)
        self._requests[request.request_id] = [one.sequence_id for one in sequences]
        for sequence in sequences:
            if request.sampling.max_tokens == 0:
                self._end(sequence, FinishReason.LENGTH)
            elif sequence.waiting_for:
                self._blocked[sequence.sequence_id] = sequence
            else:
                self._wait(sequence)

    def met(self, request_id: str, condition: str) -> None:
        """A condition of `Request.waits_for` holds now; unknown ones are ignored."""
        for sequence_id in self._requests.get(request_id, ()):
            sequence = self._blocked.get(sequence_id)
            if sequence is None:
                continue
            sequence.waiting_for.discard(condition)
            if not sequence.waiting_for:
                self._wait(self._blocked.pop(sequence_id))

    def abort(self, request_id: str, choice: int | None = None) -> None:
        """End one choice or all; their last events come with the next step."""
        for sequence_id in list(self._requests.get(request_id, ())):
            sequence = self._find(sequence_id)
            if sequence is not None and choice in (None, sequence.choice):
                self._end(sequence, FinishReason.ABORT)

    def draft_rows(self) -> list[DraftRow]:
        """Decoding sequences with room for drafts, and how many tokens fit."""
        most = self._limits.max_draft_tokens
        rows: list[DraftRow] = []
        for sequence in self._running.values():
            room = min(most, sequence.limit - len(sequence.token_ids) - 1)
            if room > 0 and sequence.decoding:
                rows.append(
                    DraftRow(
                        sequence.sequence_id, sequence.token_ids, room, sequence.request.tenant
                    )
                )
        return rows

    def set_draft(self, sequence_id: str, draft: Draft) -> None:
        """Verify this draft in the next step; of a tree, its first branch."""
        sequence = self._running.get(sequence_id)
        if sequence is not None:
            sequence.drafts = first_branch(draft)

    # ---- a step

    def schedule(self) -> StepPlan | None:
        """The next step, or None when nothing can run."""
        planned: dict[str, PlanRow] = {}
        budget = self._plan_running(planned)
        self._admit(planned, budget)
        if not planned:
            return None
        for sequence_id, row in planned.items():
            self._launch(self._running[sequence_id], row)
        self._step_id += 1
        plan = StepPlan(
            self._step_id, tuple(planned.values()), tuple(self._started), tuple(self._released)
        )
        self._started.clear()
        self._released.clear()
        return plan

    def commit(self, plan: StepPlan, result: StepResult) -> tuple[TokenEvent, ...]:
        """Append what was drawn, end what is done, return the step's events."""
        now = self._clock.now_s()
        errors = result.errors
        for row, done in zip(plan.rows, result.rows, strict=bool(result.rows)):
            sequence = self._running.get(row.sequence_id)
            if sequence is None or row.sequence_id in errors:
                continue
            if row.samples:
                self._commit_tokens(sequence, row, done, now)
            else:
                sequence.num_computed = row.start + len(row.token_ids)
        for row in plan.rows:
            sequence = self._running.get(row.sequence_id)
            if sequence is not None and row.sequence_id in errors:
                self.cache.withdraw(sequence.blocks, row.start // self.cache.block_size)
                self._end(sequence, FinishReason.ERROR, error=errors[row.sequence_id])
        return self.take_events()

    def take_events(self) -> tuple[TokenEvent, ...]:
        """Events not delivered yet."""
        events = tuple(self._events)
        self._events.clear()
        return events

    # ---- planning

    def _plan_running(self, planned: dict[str, PlanRow]) -> int:
        """Rows of sequences that hold blocks, decoding ones first; returns the budget left."""
        budget = self._limits.max_num_batched_tokens
        order = sorted(self._running.values(), key=_prefilling)
        for sequence in order:
            if budget <= 0:
                break
            if sequence.sequence_id not in self._running:
                continue  # preempted by an earlier row of this step
            row = self._row(sequence, budget)
            while row is None and self._preempt(sequence, planned):
                row = self._row(sequence, budget)
            if row is not None:
                planned[sequence.sequence_id] = row
                budget -= len(row.token_ids)
        spent = sum(len(row.token_ids) for row in planned.values())
        return self._limits.max_num_batched_tokens - spent

    def _row(self, sequence: Sequence, budget: int) -> PlanRow | None:
        """As many tokens as budget and blocks allow; None when not even one block is left."""
        tokens, start = sequence.token_ids, sequence.num_computed
        end = min(len(tokens), start + budget)
        drafts = sequence.drafts[: budget - (end - start)] if end == len(tokens) else ()
        while not self.cache.try_grow(sequence.blocks, end + len(drafts)):
            if not drafts:
                return None
            drafts = drafts[:-1]
        new = tokens[start:end] if end - start > 1 else [tokens[start]]
        if drafts:
            new = [*new, *drafts]
        return PlanRow(
            sequence.sequence_id,
            new,
            start,
            len(drafts),
            end == len(tokens),
            sequence.blocks.tables,
        )

    def _preempt(self, needy: Sequence, planned: dict[str, PlanRow]) -> bool:
        """Take the blocks of the policy's victim; False when that is the needy one itself."""
        running = [one.queued() for one in self._running.values()]
        chosen = self._running[self._policy.victim(running)]
        planned.pop(chosen.sequence_id, None)
        self._leave_batch(chosen)
        chosen.preemptions += 1
        self.counters.preemptions += 1
        self._wait(chosen)
        return chosen is not needy

    def _admit(self, planned: dict[str, PlanRow], budget: int) -> None:
        room = self._limits.max_num_seqs - len(self._running)
        if not self._waiting or budget <= 0 or room <= 0:
            return
        admitted: list[str] = []
        for sequence_id in self._policy.candidates(self._clock.now_s(), self._cached_tokens):
            if budget <= 0 or len(admitted) >= room:
                break
            sequence = self._waiting[sequence_id]
            match = self.cache.lookup(sequence.blocks, sequence.token_ids)
            if self._pending.computed_elsewhere(sequence.blocks.keys, match.num_blocks):
                continue
            if not self._fits(match, sequence):
                break
            row = self._enter(sequence, match, budget)
            planned[sequence_id] = row
            budget -= len(row.token_ids)
            admitted.append(sequence_id)
        for sequence_id in admitted:
            self._policy.remove(sequence_id)
            del self._waiting[sequence_id]

    def _fits(self, match: Match, sequence: Sequence) -> bool:
        """The whole prompt above the watermark, unless nobody else holds blocks."""
        alone = not self._running
        return self.cache.fits(match, len(sequence.token_ids), reserve=not alone)

    def _enter(self, sequence: Sequence, match: Match, budget: int) -> PlanRow:
        """Hold the match, reserve the whole prompt, plan the first chunk."""
        blocks = sequence.blocks
        self.cache.acquire(blocks, match)
        self.cache.try_grow(blocks, len(sequence.token_ids))
        sequence.num_computed = match.num_blocks * self.cache.block_size
        if sequence.preemptions == 0:
            sequence.num_cached = sequence.num_computed
            sequence.scheduled_s = self._clock.now_s()
            self.counters.prompt_tokens += sequence.num_prompt
        if self.cache.prefix_caching:
            self.counters.prefix_queries += len(sequence.token_ids)
            self.counters.prefix_hits += sequence.num_computed
            self._pending.claim(sequence.sequence_id, blocks.keys[match.num_blocks :])
        self._running[sequence.sequence_id] = sequence
        self._started.append(sequence.start())
        row = self._row(sequence, budget)
        if row is None:
            raise RuntimeError(f"no blocks for {sequence.sequence_id} although they were reserved")
        return row

    def _launch(self, sequence: Sequence, row: PlanRow) -> None:
        """The row is final: publish what it fills (drafts are not known tokens)."""
        known = row.start + len(row.token_ids) - row.num_drafts
        if known // self.cache.block_size > sequence.blocks.num_published:
            self.cache.publish(sequence.blocks, sequence.token_ids, known)
            self._pending.published(sequence.sequence_id, sequence.blocks)
        self._policy.on_scheduled(sequence.sequence_id, len(row.token_ids))
        sequence.drafts = ()

    def _cached_tokens(self, sequence_id: str) -> int:
        sequence = self._waiting[sequence_id]
        match = self.cache.lookup(sequence.blocks, sequence.token_ids)
        return match.num_blocks * self.cache.block_size

    # ---- committing

    def _commit_tokens(self, sequence: Sequence, row: PlanRow, done: RowResult, now: float) -> None:
        """Accepted drafts have valid KV; the last token drawn has none yet."""
        known = row.start + len(row.token_ids) - row.num_drafts
        sequence.num_computed = known + done.num_accepted
        tokens, reason, stop = self._truncate(sequence, done.token_ids)
        sequence.token_ids.extend(tokens)
        sequence.first_token_s = sequence.first_token_s or now
        self.counters.generation_tokens += len(tokens)
        logprobs = None if done.logprobs is None else done.logprobs[: len(tokens)]
        if reason is not None:
            self._end(sequence, reason, tokens=tokens, logprobs=logprobs, stop=stop)
            return
        self.cache.drop_outside_windows(sequence.blocks, sequence.num_computed)
        self._events.append(
            TokenEvent(
                sequence.request.request_id,
                sequence.choice,
                tokens,
                logprobs,
                num_cached_tokens=sequence.num_cached,
            )
        )

    def _truncate(
        self, sequence: Sequence, drawn: tuple[int, ...]
    ) -> tuple[tuple[int, ...], FinishReason | None, int | None]:
        """Tokens up to the one that ends the sequence, why, and the stop id."""
        length, stops = len(sequence.token_ids), sequence.stop_ids
        least = sequence.num_prompt + sequence.request.sampling.min_tokens
        for count, token in enumerate(drawn, start=1):
            if token in stops and length + count > least:
                return drawn[:count], FinishReason.STOP, token
            if length + count >= sequence.limit:
                return drawn[:count], FinishReason.LENGTH, None
        return drawn, None, None

    # ---- ends

    def _end(
        self,
        sequence: Sequence,
        reason: FinishReason,
        *,
        tokens: tuple[int, ...] = (),
        logprobs: Items | None = None,
        stop: int | None = None,
        error: str | None = None,
    ) -> None:
        """The one way out, whatever ended the sequence."""
        sequence_id, request_id = sequence.sequence_id, sequence.request.request_id
        if sequence_id in self._running:
            self._leave_batch(sequence)
        elif sequence_id in self._waiting:
            del self._waiting[sequence_id]
            self._policy.remove(sequence_id)
        self._blocked.pop(sequence_id, None)
        left = self._requests[request_id]
        left.remove(sequence_id)
        if not left:
            del self._requests[request_id]
        self.counters.finished[reason.value] += 1
        self._events.append(
            TokenEvent(
                request_id,
                sequence.choice,
                tokens,
                None if logprobs is None else tuple(logprobs),
                reason,
                stop,
                sequence.num_cached,
                error,
                sequence.timing(self._clock.now_s()),
            )
        )

    def _leave_batch(self, sequence: Sequence) -> None:
        """Give blocks back; the runner hears of it with the next plan."""
        del self._running[sequence.sequence_id]
        self._pending.forget(sequence.sequence_id)
        self.cache.release(sequence.blocks)
        sequence.num_computed = 0
        sequence.drafts = ()
        self._started = [one for one in self._started if one.sequence_id != sequence.sequence_id]
        self._released.append(sequence.sequence_id)

    def _wait(self, sequence: Sequence) -> None:
        self._waiting[sequence.sequence_id] = sequence
        self._policy.add(sequence.queued())

    def _find(self, sequence_id: str) -> Sequence | None:
        for place in (self._running, self._waiting, self._blocked):
            if sequence_id in place:
                return place[sequence_id]
        return None


def _prefilling(sequence: Sequence) -> bool:
    return len(sequence.token_ids) - sequence.num_computed > 1


def first_branch(draft: Draft) -> Items[int]:
    """The draft itself if it is a chain, else the path of first children."""
    if draft.parents is None:
        return draft.token_ids
    branch: list[int] = []
    node = -1
    for index, parent in enumerate(draft.parents):
        if parent == node:
            branch.append(draft.token_ids[index])
            node = index
    return branch
