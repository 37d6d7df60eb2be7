"""One rule: computed tokens chase known tokens under a token budget.

Prefill, chunked prefill, decode, verification of drafts and a partial prefix hit are the same
case: a sequence has known tokens whose KV is not computed yet, and gets as many of them into
the step as budget and blocks allow.

Steps may be planned ahead: a token that a step in flight draws is known to exist, and only its
id is not known. What such a step computes for a sequence that ended meanwhile is dropped.

Blocks are offered to other requests when the step that filled them is committed, so that
nobody reads what a failing step wrote; until then equal prompts wait for them. A sequence
that must give its blocks back keeps its tokens (they were streamed), finds its full blocks
again if they last, and waits with its arrival time.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import replace

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
    StepPlan,
    StepResult,
    TokenEvent,
    TokenLogprob,
)
from rtp_core.errors import RequestError
from rtp_core.kv.cache import KVCache
from rtp_core.scheduling.admission import expand
from rtp_core.scheduling.batch import Batch
from rtp_core.scheduling.counters import SchedulerCounters
from rtp_core.scheduling.drafting import rows_to_draft
from rtp_core.scheduling.planning import Planner
from rtp_core.scheduling.sequence import Ending, Sequence
from rtp_core.scheduling.waiting import Waiting


class Scheduler:
    """Owns every sequence from `add` to its one end. Plain Python, single-threaded."""

    def __init__(
        self,
        policy: SchedulingPolicy,
        cache: KVCache,
        limits: EngineLimits,
        clock: Clock,
        eos_token_ids: frozenset[int],
        drafts_hold_blocks: bool = False,
    ) -> None:
        """`drafts_hold_blocks`: drafters store keys of what they draft, in the cache."""
        self.cache = cache
        self._drafts_hold_blocks = drafts_hold_blocks
        self._policy = policy
        self._limits = limits
        self._clock = clock
        self._eos = eos_token_ids
        self._requests: dict[str, dict[int, Sequence]] = {}
        self._batch = Batch(cache)
        self._waiting = Waiting(policy)
        self._planner = Planner(policy, limits, clock, self._batch, self._waiting)
        self._in_flight: dict[int, tuple[tuple[Sequence, int], ...]] = {}
        self._events: list[TokenEvent] = []
        self._step_id = 0

    @property
    def counters(self) -> SchedulerCounters:
        """Totals since start."""
        return self._planner.counters

    @property
    def num_running(self) -> int:
        """Sequences that hold blocks."""
        return len(self._batch)

    @property
    def num_waiting(self) -> int:
        """Sequences that wait for admission or for a condition."""
        return len(self._waiting)

    @property
    def has_work(self) -> bool:
        """True while a step can make progress or events are to be taken."""
        return bool(len(self._batch) or self._waiting.num_queued or self._events or self._in_flight)

    # ---- what comes in

    def add(self, request: Request) -> None:
        """Queue every choice. Raises RequestError when it is refused; nothing remains then."""
        if request.request_id in self._requests:
            raise RequestError("request_id", f"request {request.request_id!r} is under way")
        sequences = expand(request, self.cache, self._limits, self._eos)
        self._requests[request.request_id] = {one.choice: one for one in sequences}
        for sequence in sequences:
            if request.sampling.max_tokens == 0 and not sequence.scores_prompt:
                self._end(sequence, Ending(FinishReason.LENGTH))
            else:
                self._waiting.add(sequence)

    def met(self, request_id: str, condition: str) -> None:
        """A condition of `Request.waits_for` holds now; unknown ones are ignored."""
        for sequence in self._requests.get(request_id, {}).values():
            self._waiting.met(sequence, condition)

    def refuse(self, request_id: str, error: str) -> None:
        """End every choice: it turned out that the request cannot run. Unknown ids: no-op."""
        for sequence in list(self._requests.get(request_id, {}).values()):
            self._end(sequence, Ending(FinishReason.ERROR, error=error))

    def abort(self, request_id: str, choice: int | None = None) -> None:
        """End one choice or all; their last events come with the next step."""
        for sequence in list(self._requests.get(request_id, {}).values()):
            if choice in (None, sequence.choice):
                self._end(sequence, Ending(FinishReason.ABORT))

    def draft_rows(self, *, ahead: bool = False) -> list[DraftRow]:
        """Decoding sequences with room for drafts, and how many tokens fit.

        With `ahead`, those whose next token is being drawn, as if it had been. Where drafters
        have layers of their own, drafts have blocks before they are made.
        """
        cache = self.cache if self._drafts_hold_blocks and not ahead else None
        return rows_to_draft(self._batch, self._limits.max_draft_tokens, ahead, cache)

    def set_draft(self, sequence_id: str, draft: Draft) -> None:
        """Verify this draft in the next step; of a tree, its first branch."""
        sequence = self._batch.get(sequence_id)
        if sequence is not None:
            sequence.drafts = first_branch(draft)

    # ---- a step

    def schedule(self) -> StepPlan | None:
        """The next step, or None when nothing can run."""
        rows = self._planner.plan()
        if not rows:
            return None
        for sequence, row in rows.items():
            self._batch.launch(sequence, row)
            self._policy.on_scheduled(row.sequence_id, len(row.token_ids))
        self._step_id += 1
        self._in_flight[self._step_id] = tuple((one, one.preemptions) for one in rows)
        return StepPlan(self._step_id, tuple(rows.values()), *self._batch.take_changes())

    def commit(self, plan: StepPlan, result: StepResult) -> tuple[TokenEvent, ...]:
        """Append what was drawn, end what is done, return the step's events.

        Steps are committed in the order in which they were planned. A step that failed as a
        whole names every row in `errors` and has no row results.
        """
        launched = self._in_flight.pop(plan.step_id)
        now, errors = self._clock.now_s(), result.errors
        all_failed = len(errors) >= len(plan.rows)
        for (sequence, life), row, done in zip(
            launched, plan.rows, result.rows, strict=not all_failed
        ):
            current = sequence.in_batch and sequence.preemptions == life
            if current and row.sequence_id not in errors:
                self._commit_row(sequence, row, done, now)
        for sequence, _ in launched if errors else ():
            if sequence.sequence_id in errors:
                self._fail(sequence, errors[sequence.sequence_id])
        return self.take_events()

    def take_events(self) -> tuple[TokenEvent, ...]:
        """Events not delivered yet."""
        events = tuple(self._events)
        self._events.clear()
        return events

    def _commit_row(self, sequence: Sequence, row: PlanRow, done: RowResult, now: float) -> None:
        """Accepted drafts have valid KV; the last token drawn has none yet."""
        computed = row.start + len(row.token_ids) - row.num_drafts + done.num_accepted
        if row.num_drafts:
            sequence.num_computed = computed
        sequence.take_scores(row.start, done.prompt_logprobs)
        if row.samples:
            sequence.num_pending -= 1
            if not done.token_ids:  # its last token is asked again
                sequence.num_computed = len(sequence.token_ids) - 1
                self._batch.publish(sequence, sequence.num_computed)
                return
            tokens, ending = sequence.accept(done.token_ids, done.complete)
            self.counters.generation_tokens += len(tokens)
            if sequence.first_token_s == 0.0:
                sequence.first_token_s = now
            logprobs = done.logprobs and done.logprobs[: len(tokens)]
            self._batch.publish(sequence, min(computed, len(sequence.token_ids)))
            if ending is not None:
                self._end(sequence, ending, tokens, logprobs)
                return
            self._events.append(_event(sequence, tokens, logprobs))
        else:
            self._batch.publish(sequence, computed)
            if sequence.unsent:
                self._events.append(_event(sequence))

    # ---- ends

    def _fail(self, sequence: Sequence, error: str) -> None:
        """What the step wrote is not to be trusted, even if the sequence has left since."""
        self.cache.withdraw(sequence.blocks)
        if sequence.in_batch:
            self._end(sequence, Ending(FinishReason.ERROR, error=error))

    def _end(
        self,
        sequence: Sequence,
        ending: Ending,
        tokens: tuple[int, ...] = (),
        logprobs: tuple[TokenLogprob, ...] | None = None,
    ) -> None:
        """The one way out, whatever ended the sequence."""
        request_id = sequence.request.request_id
        if sequence.in_batch:
            self._batch.leave(sequence)
            self._policy.remove(sequence.sequence_id)
        else:
            self._waiting.remove(sequence.sequence_id)
        left = self._requests[request_id]
        del left[sequence.choice]
        if not left:
            del self._requests[request_id]
        self.counters.finished[ending.reason.value] += 1
        self._events.append(
            replace(
                _event(sequence, tokens, logprobs),
                finish_reason=ending.reason,
                stop_reason=ending.stop_token_id,
                error=ending.error,
                timing=sequence.timing(self._clock.now_s()),
            )
        )


def _event(
    sequence: Sequence,
    tokens: tuple[int, ...] = (),
    logprobs: tuple[TokenLogprob, ...] | None = None,
) -> TokenEvent:
    return TokenEvent(
        sequence.request.request_id,
        sequence.choice,
        tokens,
        logprobs,
        num_cached_tokens=sequence.num_cached,
        prompt_logprobs=sequence.take_unsent(),
    )


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
