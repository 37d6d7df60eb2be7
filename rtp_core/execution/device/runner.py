"""`step_runner.StepRunner` for a device that runs beside the host.

A step is queued without waiting for the one before it: tokens that step draws stay on the
device, and what the host must know of them is read one step later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import torch

from rtp_core.api import (
    KVMemory,
    PlanRow,
    RowResult,
    SequenceStart,
    StepPlan,
    StepResult,
    TokenLogprob,
)
from rtp_core.errors import DeviceLostError
from rtp_core.execution.device.accelerator import Accelerator, Span
from rtp_core.execution.device.frame import Frame, StepShape, in_order
from rtp_core.execution.device.programs import Programs
from rtp_core.execution.faults import explained
from rtp_core.execution.prompt_scores import PromptScores
from rtp_core.execution.step_runner import Pending


class Drawn(NamedTuple):
    """Last token of each row, int32 [rows] on the device; what reads results and errors later."""

    token_ids: torch.Tensor
    read: Callable[[], tuple[list[RowResult], dict[str, str]]]


Scored = Callable[[], dict[str, tuple[TokenLogprob, ...]]]
"""Reads the log-probabilities of prompts, by sequence."""


class DeviceSampler(Protocol):
    """Draws tokens without waiting for the device."""

    def start(self, start: SequenceStart, slot: int) -> None:
        """A sequence joins the batch."""
        ...

    def release(self, sequence_id: str, slot: int) -> None:
        """It left the batch."""
        ...

    def prepare(self, rows: Sequence[PlanRow]) -> None:
        """These rows are about to be computed: what drawing needs of the host is made meanwhile."""
        ...

    def rehearse(self, num_rows: int) -> None:
        """Draw once in every way there is, for up to `num_rows` sequences of no meaning."""
        ...

    def draw(
        self, rows: Sequence[PlanRow], frame: Frame, logits: torch.Tensor, num_drafts: int
    ) -> Drawn:
        """float32 logits [rows * (1 + num_drafts), padded vocab] of the rows that draw, in the
        frame's order: after the last known token and after each draft, padded."""
        ...


class DeviceRunner:
    """Owns the batch on the device. Called by the engine thread only."""

    def __init__(
        self,
        programs: Programs,
        memory: KVMemory,
        sampler: DeviceSampler,
        accelerator: Accelerator,
        scores: PromptScores,
    ) -> None:
        self._scores = scores
        self._programs = programs
        self._frames = programs.frames
        self._slots = programs.frames.slots
        self._memory = memory
        self._sampler = sampler
        self._accelerator = accelerator
        self.most_in_flight = accelerator.most_in_flight

    @torch.inference_mode()
    def rehearse(self, num_rows: int) -> None:
        """Run every captured program and every way to draw once; prompts need plans."""
        self._programs.rehearse()
        self._sampler.rehearse(num_rows)

    @torch.inference_mode()
    def launch(self, plan: StepPlan) -> Pending:
        """Queue a step. Raises what the step does, and as `execution.faults` has it.

        After an error the device is idle, and the next step finds everything in order.
        """
        with self._explaining():
            span, drawn, scored = self._queue(plan)

        def finish() -> StepResult:
            with self._explaining():
                seconds = span.wait()
                results, errors = drawn.read() if drawn is not None else ([], {})
                prompts = scored() if scored is not None else {}
            by_id = {result.sequence_id: result for result in results}
            ordered = tuple(
                by_id.get(row.sequence_id) or RowResult(row.sequence_id, ()) for row in plan.rows
            )
            if prompts:
                ordered = tuple(
                    row._replace(prompt_logprobs=prompts.get(row.sequence_id, ()))
                    for row in ordered
                )
            return StepResult(plan.step_id, ordered, seconds, errors, seconds)

        return finish

    def _queue(self, plan: StepPlan) -> tuple[Span, Drawn | None, Scored | None]:
        self._apply_deltas(plan)
        rows = in_order(plan)
        self._sampler.prepare(rows)
        shape = self._frames.send(rows, self._programs.padded_rows)
        spans = self._scores.spans(rows)
        span = self._accelerator.begin()
        hidden = self._programs.hidden(shape) if spans else None
        sampling = [row for row in rows if row.samples]
        drawn = self._draw(shape, sampling, hidden)
        scored = None
        if hidden is not None:
            scored = self._scores.score(spans, hidden, self._programs.logits)
        span.end()
        return span, drawn, scored

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            told = explained(error, self._accelerator.lost, self._accelerator.free)
            if not isinstance(told, DeviceLostError):
                self._programs.attention.reset()
            if told is error:
                raise
            raise told from error

    def _apply_deltas(self, plan: StepPlan) -> None:
        for sequence_id in plan.released:
            slot = self._slots.give(sequence_id)
            if slot is not None:
                self._sampler.release(sequence_id, slot)
                self._scores.release(sequence_id)
        for start in plan.started:
            self._scores.start(start)
            self._sampler.start(start, self._slots.take(start.sequence_id))
        if plan.copies:
            self._memory.copy(plan.copies)

    def _draw(
        self, shape: StepShape, sampling: Sequence[PlanRow], hidden: torch.Tensor | None
    ) -> Drawn | None:
        """`hidden` is of all the step's tokens, where it is there already."""
        if hidden is None:
            logits = self._programs.run(shape, len(sampling))
        else:
            logits = self._programs.picked(hidden, shape, len(sampling))
        if not sampling:
            return None
        frame = self._frames.device
        drawn = self._sampler.draw(sampling, frame, logits, shape.num_drafts)
        self._programs.last_tokens[frame.draws[: len(sampling)]] = drawn.token_ids
        return drawn
