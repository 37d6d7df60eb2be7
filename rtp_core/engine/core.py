"""The engine: one thread, one loop. draft -> schedule -> launch -> commit.

A runner that executes beside the host has the next step planned and launched before the last
one's tokens are read, so that planning costs no device time. Drafts follow from those tokens:
while a drafter has an idea, steps are read before the next is planned, and events are told while
it runs; while none has, drafters cost the device nothing.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from rtp_core.api import (
    Commit,
    KVMemory,
    LoadStats,
    Request,
    StepCosts,
    StepPlan,
    StepResult,
    TokenEvent,
)
from rtp_core.engine.contract import ModelInfo, Topic
from rtp_core.engine.grammar_desk import CONDITION, GrammarDesk
from rtp_core.errors import CapacityError, DeviceLostError, EngineDeadError, RequestError
from rtp_core.execution.step_runner import Pending, StepRunner
from rtp_core.observe.snapshot import EngineStats, GrammarStats
from rtp_core.scheduling.scheduler import Scheduler
from rtp_core.speculation.controller import SpeculationController

log = logging.getLogger("rtp.engine")


@dataclass(frozen=True, slots=True)
class EngineParts:
    """Everything `assemble` wires together; the loop owns it from then on."""

    info: ModelInfo
    scheduler: Scheduler
    runner: StepRunner
    speculation: SpeculationController
    memory: KVMemory
    costs: StepCosts
    load: LoadStats
    explain: Callable[[], dict[str, Any]]
    plugin_errors: Counter[str]
    grammars: GrammarDesk | None = None


class EngineCore:
    """Implements `contract.Engine` over parts that `assemble` built."""

    def __init__(self, parts: EngineParts) -> None:
        self._info = parts.info
        self._scheduler = parts.scheduler
        self._runner = parts.runner
        self._speculation = parts.speculation
        self._memory = parts.memory
        self._costs = parts.costs
        self._load = parts.load
        self._explain = parts.explain
        self._plugin_errors = parts.plugin_errors
        self._grammars = parts.grammars
        self._num_steps = 0
        self._step_seconds = 0.0
        self._host_seconds = 0.0
        self._closed = False
        self._in_flight: deque[tuple[StepPlan, Pending]] = deque()
        self._collected_s = 0.0
        self._tokens_first = False

    @property
    def info(self) -> ModelInfo:
        """The model served."""
        return self._info

    @property
    def has_work(self) -> bool:
        """True while `step` can make progress or has events to deliver."""
        compiling = self._grammars is not None and self._grammars.busy
        busy = self._scheduler.has_work or bool(self._in_flight) or compiling
        return busy and not self._closed

    def submit(self, request: Request) -> None:
        """Queue a request; raises RequestError if it can never run."""
        if self._closed:
            raise EngineDeadError("the engine is closed")
        check_token_ids(request, self._info.vocab_size)
        structured = request.sampling.structured
        if structured is None or self._grammars is None:
            self._scheduler.add(request)
            return
        self._scheduler.add(replace(request, waits_for=request.waits_for | {CONDITION}))
        self._grammars.submit(request.request_id, structured)

    def abort(self, request_id: str, choice: int | None = None) -> None:
        """End one choice of a request, or all; unknown ids are ignored."""
        self._scheduler.abort(request_id, choice)
        if choice is None and self._grammars is not None:
            self._grammars.forget(request_id)

    def step(self) -> tuple[TokenEvent, ...]:
        """Plan and launch a step; commit the oldest one once enough are in flight.

        Raises DeviceLostError, and nothing else that a step does.
        """
        began = time.perf_counter()
        if self._grammars is not None and self._grammars.busy:
            self._admit_compiled(self._grammars)
        if self._tokens_first and self._in_flight:
            events = self._collect(began)
            self._launch_next()
            return events
        launched = self._launch_next()
        if launched and len(self._in_flight) < self._runner.most_in_flight:
            return self._scheduler.take_events()
        if not self._in_flight:
            return self._scheduler.take_events()
        events = self._collect(began)
        if self._in_flight:
            self._tokens_first = self._has_ideas()
        return events

    def _launch_next(self) -> bool:
        """Plan the next step, with drafts if all tokens are known, and launch it."""
        drafted = not self._in_flight and self._draft()
        self._tokens_first = drafted and self._runner.most_in_flight > 1
        plan = self._scheduler.schedule()
        if plan is not None:
            self._in_flight.append((plan, self._launch(plan)))
        return plan is not None

    def _admit_compiled(self, grammars: GrammarDesk) -> None:
        """Requests whose grammar is there join the queue, at the place of their arrival."""
        if not (self._scheduler.has_work or self._in_flight):
            grammars.nap()
        for request_id, error in grammars.take():
            if error is None:
                self._scheduler.met(request_id, CONDITION)
            else:
                self._scheduler.refuse(request_id, error)

    def _collect(self, began: float) -> tuple[TokenEvent, ...]:
        plan, pending = self._in_flight.popleft()
        result = self._finish(plan, pending)
        self._extend(plan, result)
        events = self._scheduler.commit(plan, result)
        self._observe(plan, result)
        now = time.perf_counter()
        self._account(plan, result, now - max(began, self._collected_s))
        self._collected_s = now if self._in_flight else 0.0
        return events

    def stats(self) -> EngineStats:
        """Counters and gauges between steps."""
        scheduler = self._scheduler
        speculation = self._speculation.stats
        return EngineStats(
            num_running=scheduler.num_running,
            num_waiting=scheduler.num_waiting,
            kv_usage=scheduler.cache.usage,
            kv_bytes=self._memory.num_bytes,
            num_blocks=scheduler.cache.num_blocks,
            num_steps=self._num_steps,
            prompt_tokens=scheduler.counters.prompt_tokens,
            generation_tokens=scheduler.counters.generation_tokens,
            prefix_queries=scheduler.counters.prefix_queries,
            prefix_hits=scheduler.counters.prefix_hits,
            preemptions=scheduler.counters.preemptions,
            spec_drafts=speculation.drafts,
            spec_draft_tokens=speculation.draft_tokens,
            spec_accepted_tokens=speculation.accepted_tokens,
            step_seconds=self._step_seconds,
            step_host_seconds=self._host_seconds,
            load_bytes=self._load.bytes_read,
            load_seconds=self._load.seconds,
            blocks={"device/dense": scheduler.cache.num_blocks_used},
            cached_blocks={"device/dense": scheduler.cache.num_blocks_idle},
            spec_method_tokens=dict(speculation.method_tokens),
            finished=dict(scheduler.counters.finished),
            plugin_errors=dict(self._plugin_errors),
            grammars=GrammarStats() if self._grammars is None else self._grammars.stats,
        )

    def explain(self) -> dict[str, Any]:
        """Effective features, as `rtp explain --json` prints them."""
        return self._explain()

    def report(self, topic: Topic) -> dict[str, Any]:
        """As Engine.report."""
        if topic == "cost":
            return {"steps": self._costs.table(), "num_steps": self._num_steps}
        return self._scheduler.cache.report()

    def reset_prefix_cache(self) -> bool:
        """Forget idle cached blocks; False while blocks are in use."""
        return self._scheduler.cache.reset()

    def close(self) -> None:
        """Refuse further work; memory goes with the last reference."""
        self._closed = True

    def _draft(self) -> bool:
        """Give drafts to rows that may have some; whether any has."""
        if not self._speculation.active:
            return False
        rows = self._scheduler.draft_rows()
        drafted = False
        for row, (_, draft) in zip(rows, self._speculation.propose(rows), strict=True):
            if draft.token_ids:
                self._scheduler.set_draft(row.sequence_id, draft)
                drafted = True
        return drafted

    def _has_ideas(self) -> bool:
        """Whether somebody would draft, judged without the tokens that steps in flight draw."""
        if not self._speculation.active:
            return False
        return self._speculation.would_draft(self._scheduler.draft_rows(ahead=True))

    def _launch(self, plan: StepPlan) -> Pending:
        try:
            return self._runner.launch(plan)
        except DeviceLostError:
            raise
        except Exception as error:  # a failed step ends its own rows; the server stays up
            log.exception("step_failed step=%d rows=%d", plan.step_id, len(plan.rows))
            failed = _failed(plan, error)
            return lambda: failed

    def _finish(self, plan: StepPlan, pending: Pending) -> StepResult:
        try:
            return pending()
        except DeviceLostError:
            raise
        except Exception as error:  # as above
            log.exception("step_failed step=%d rows=%d", plan.step_id, len(plan.rows))
            return _failed(plan, error)

    def _extend(self, plan: StepPlan, result: StepResult) -> None:
        """Drafters hear who left and what was computed before blocks of it are offered."""
        if not self._speculation.active:
            return
        for sequence_id in plan.released:
            self._speculation.release(sequence_id)
        if result.states is not None:
            self._speculation.extend(plan, result, result.states)

    def _observe(self, plan: StepPlan, result: StepResult) -> None:
        if not self._speculation.active:
            return
        self._speculation.observe(
            [
                Commit(done.sequence_id, done.token_ids, row.num_drafts, done.num_accepted)
                for row, done in zip(plan.rows, result.rows, strict=False)
                if row.samples
            ]
        )

    def _account(self, plan: StepPlan, result: StepResult, seconds: float) -> None:
        self._num_steps += 1
        self._step_seconds += seconds
        self._host_seconds += seconds - result.model_seconds
        context = sum(row.start for row in plan.rows)
        self._costs.record(plan.num_tokens, context, len(plan.rows), result.seconds)


def _failed(plan: StepPlan, error: Exception) -> StepResult:
    """Rows hear what was raised on purpose; other errors may tell more than they should."""
    reason = "the model step failed; see the server log"
    if isinstance(error, CapacityError):
        reason = str(error)
    return StepResult(plan.step_id, (), errors={row.sequence_id: reason for row in plan.rows})


def check_token_ids(request: Request, vocab_size: int) -> None:
    """Every id the request names lies inside the vocabulary, or RequestError with the field."""
    sampling = request.sampling
    fields = (
        ("prompt", request.prompt_token_ids),
        ("stop_token_ids", sampling.stop_token_ids),
        ("structured_after", sampling.structured_after),
        ("allowed_token_ids", sampling.allowed_token_ids),
        ("bad_token_ids", [token for one in sampling.bad_token_ids for token in one]),
        ("logit_bias", sampling.logit_bias),
    )
    for name, ids in fields:
        if ids and not 0 <= min(ids) <= max(ids) < vocab_size:
            raise RequestError(
                name, f"a token id of {name} lies outside the vocabulary, 0 to {vocab_size - 1}"
            )
