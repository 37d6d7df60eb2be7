"""From a StepPlan to a StepResult: pack tensors, one forward, draw tokens."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch

from rtp_core.api import (
    BoundAttention,
    CausalModel,
    DraftableModel,
    ForwardOutput,
    HiddenStates,
    KVMemory,
    PlanRow,
    RowResult,
    SequenceStart,
    StepPlan,
    StepResult,
    TokenLogprob,
)
from rtp_core.execution.faults import explained, free_memory, lost_device
from rtp_core.execution.prompt_scores import PromptScores, Span
from rtp_core.execution.step_runner import Pending


class Capture(NamedTuple):
    """States that drafters read: entering `layers`, and behind the final norm."""

    layers: tuple[int, ...] = ()
    final: bool = False


class RowSampler(Protocol):
    """Draws tokens and verifies drafts; keeps per-sequence penalty counts."""

    def start(self, start: SequenceStart) -> None:
        """A sequence joins the batch."""
        ...

    def release(self, sequence_id: str) -> None:
        """It left the batch."""
        ...

    def prepare(self, rows: Sequence[PlanRow]) -> None:
        """The model is about to run these rows: what drawing needs is made meanwhile."""
        ...

    def sample(
        self, rows: Sequence[PlanRow], logits: torch.Tensor
    ) -> tuple[list[RowResult], dict[str, str]]:
        """float32 logits [sum(1 + num_drafts), vocab] of the sampling rows, in order."""
        ...


class ModelRunner:
    """Runs each step to its end. Called by the engine thread only; `step_runner.StepRunner`."""

    most_in_flight = 1

    def __init__(
        self,
        model: CausalModel,
        attention: BoundAttention,
        memory: KVMemory,
        sampler: RowSampler,
        device: str,
        scores: PromptScores | None = None,
    ) -> None:
        self._capture: Capture | None = None
        self._model = model
        self._scores = scores
        self._attention = attention
        self._memory = memory
        self._sampler = sampler
        self._device = device
        self._model_seconds = 0.0
        self.num_forwards = 0

    def keep_states(self, capture: Capture | None) -> None:
        """From now on results carry these states; None for none."""
        self._capture = capture

    def launch(self, plan: StepPlan) -> Pending:
        """`run`, as the engine asks for it; errors as `execution.faults` has them."""
        try:
            result = self.run(plan)
        except Exception as error:
            told = explained(error, self._lost, lambda: free_memory(self._device))
            if told is error:
                raise
            raise told from error
        return lambda: result

    @torch.inference_mode()
    def run(self, plan: StepPlan) -> StepResult:
        """Execute one plan; raises whatever the model raises, with no token emitted."""
        began = time.perf_counter()
        self._model_seconds = 0.0
        self._apply_deltas(plan)
        self._sampler.prepare(plan.rows)
        sampling, picks = _sampling_rows(plan.rows)
        spans = [] if self._scores is None else self._scores.spans(plan.rows)
        whole = bool(spans) or (self._capture is not None and self._capture.final)
        done = self._forward(plan, None if whole else picks)
        prompts = self._score(spans, done.hidden)
        rows, errors = self._draw(plan, sampling, done.hidden[picks] if whole else done.hidden)
        if prompts:
            rows = tuple(
                row._replace(prompt_logprobs=prompts.get(row.sequence_id, ())) for row in rows
            )
        states = None if self._capture is None else self._states(self._capture, done)
        seconds = time.perf_counter() - began
        return StepResult(plan.step_id, rows, seconds, errors, self._model_seconds, states)

    def _states(self, capture: Capture, done: ForwardOutput) -> HiddenStates:
        final = None
        if capture.final and isinstance(self._model, DraftableModel):
            final = self._model.normed(done.hidden)
        return HiddenStates(done.captured, final)

    def _lost(self) -> str | None:
        return lost_device(self._device)

    def _apply_deltas(self, plan: StepPlan) -> None:
        for sequence_id in plan.released:
            self._sampler.release(sequence_id)
            if self._scores is not None:
                self._scores.release(sequence_id)
        for start in plan.started:
            self._sampler.start(start)
            if self._scores is not None:
                self._scores.start(start)
        if plan.copies:
            self._memory.copy(plan.copies)

    def _forward(self, plan: StepPlan, picks: list[int] | None) -> ForwardOutput:
        """Hidden states of the tokens at `picks`, or of all."""
        flat: list[int] = []
        for row in plan.rows:
            flat.extend(row.token_ids)
        token_ids = torch.tensor(flat, dtype=torch.int64, device=self._device)
        attention_plan = self._attention.plan(plan.rows)
        wanted = None
        if picks is not None and len(picks) < len(flat):
            wanted = torch.tensor(picks, dtype=torch.int64, device=self._device)
        self.num_forwards += 1
        began = time.perf_counter()
        layers = () if self._capture is None else self._capture.layers
        done = self._model.forward(token_ids, self._attention, attention_plan, layers, wanted)
        self._model_seconds += time.perf_counter() - began
        return done

    def _draw(
        self, plan: StepPlan, sampling: Sequence[PlanRow], hidden: torch.Tensor
    ) -> tuple[tuple[RowResult, ...], dict[str, str]]:
        if not sampling:
            return tuple(RowResult(row.sequence_id, ()) for row in plan.rows), {}
        drawn, errors = self._sampler.sample(sampling, self._logits(hidden))
        results = iter(drawn)
        return tuple(
            next(results) if row.samples else RowResult(row.sequence_id, ()) for row in plan.rows
        ), errors

    def _score(
        self, spans: Sequence[Span], hidden: torch.Tensor
    ) -> dict[str, tuple[TokenLogprob, ...]]:
        if self._scores is None or not spans:
            return {}
        began = time.perf_counter()
        found = self._scores.score(spans, hidden, self._model.logits)()
        self._model_seconds += time.perf_counter() - began
        return found

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        began = time.perf_counter()
        logits = self._model.logits(hidden).cpu()
        self._model_seconds += time.perf_counter() - began
        return logits


def _sampling_rows(rows: Sequence[PlanRow]) -> tuple[list[PlanRow], list[int]]:
    """Rows that draw, and the token rows whose logits they need: last known plus drafts."""
    sampling: list[PlanRow] = []
    picks: list[int] = []
    end = 0
    for row in rows:
        end += len(row.token_ids)
        if row.samples:
            sampling.append(row)
            picks.extend(range(end - row.num_drafts - 1, end))
    return sampling, picks
