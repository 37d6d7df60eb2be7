"""What runs for a step: a captured program for decoding, an eager one for everything else."""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from collections.abc import Callable
from typing import NamedTuple

import torch

from rtp_core.api import CausalModel
from rtp_core.execution.device.accelerator import Accelerator
from rtp_core.execution.device.frame import FrameRing, Limits, StepShape
from rtp_core.execution.device.step import DeviceAttention, DeviceStep, Rows

log = logging.getLogger("rtp.engine")

LADDER = (1, 2, 4, 8, 16, 32, 64, 128, 192, 256)
"""Rows of captured programs; a step takes the next larger one. Beyond: multiples of 128."""

NextTokens = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class Captured(NamedTuple):
    """A program and the logits [rows, vocab] it fills."""

    replay: Callable[[], None]
    logits: torch.Tensor


class Programs:
    """From the device frame to logits. `last_tokens` int32 [max_rows] is by slot."""

    def __init__(
        self,
        model: CausalModel,
        attention: DeviceAttention,
        frames: FrameRing,
        limits: Limits,
        accelerator: Accelerator,
        next_tokens: NextTokens,
    ) -> None:
        self.attention = attention
        self.frames = frames
        self._model = model
        self.limits = limits
        self._accelerator = accelerator
        self._next_tokens = next_tokens
        self.last_tokens = torch.zeros(
            limits.max_rows, dtype=torch.int32, device=accelerator.device
        )
        rows = torch.arange(limits.max_rows + 1, dtype=torch.int32, device=accelerator.device)
        self._starts = {count: rows * count for count in self._counts}
        self._captured: dict[tuple[int, int, int], Captured] = {}
        self._sizes: list[int] = []
        self.attention.reserve(
            (rows, count, context)
            for rows in range(1, limits.max_rows + 1)
            for count in self._counts
            for context in limits.contexts
        )

    @property
    def _counts(self) -> tuple[int, ...]:
        """New tokens a row that captured programs take: one, or one and its drafts."""
        drafts = self.limits.max_drafts
        return (1, 1 + drafts) if drafts else (1,)

    def rehearse(self) -> None:
        """Run what `capture` records, once."""
        for shape in self._shapes():
            self._decode(*shape)

    def capture(self) -> float:
        """Record decoding for every size and context; seconds it took.

        Largest first, as their memory serves the smaller ones. Quick after `rehearse` in the
        same process, which loads the kernels.
        """
        began, free = time.perf_counter(), self._accelerator.free_bytes()
        shapes = self._shapes()
        for shape in shapes:
            replay, logits = self._accelerator.capture(lambda shape=shape: self._decode(*shape))
            self._captured[shape] = Captured(replay, logits)
        self._sizes = _ladder(self.limits.max_rows)
        seconds = time.perf_counter() - began
        taken = free - self._accelerator.free_bytes()
        log.info("programs_captured count=%d seconds=%.2f bytes=%d", len(shapes), seconds, taken)
        return seconds

    def record(self, num_rows: int, new_tokens: int, context: int) -> Callable[[], None]:
        """What replays a step as kernels are chosen now; kept by the caller alone."""
        replay, _ = self._accelerator.capture(lambda: self._decode(num_rows, new_tokens, context))
        return replay

    def run_once(self, num_rows: int, new_tokens: int, context: int) -> None:
        """The same, not recorded."""
        self._decode(num_rows, new_tokens, context)

    def _shapes(self) -> list[tuple[int, int, int]]:
        """(rows, new tokens a row, context) of captured programs."""
        return [
            (size, count, context)
            for count in reversed(self._counts)
            for context in reversed(self.limits.contexts)
            for size in reversed(_ladder(self.limits.max_rows))
        ]

    def padded_rows(self, shape: StepShape) -> int:
        """Rows of the program that serves a step."""
        if not shape.new_tokens or not self._sizes:
            return shape.num_rows
        return self._sizes[bisect_left(self._sizes, shape.num_rows)]

    def run(self, shape: StepShape, num_drawing: int) -> torch.Tensor:
        """float32 logits [num_drawing * (1 + num_drafts), vocab] of a step whose frame is sent."""
        num_picks = num_drawing * (1 + shape.num_drafts)
        if not shape.new_tokens:
            return self._general(shape, num_picks)
        key = self.padded_rows(shape), shape.new_tokens, shape.context
        captured = self._captured.get(key)
        if captured is None:
            logits = self._decode(*key)
        else:
            captured.replay()
            logits = captured.logits
        if num_drawing == shape.num_rows:
            return logits[:num_picks]
        return logits[self.frames.device.picks[:num_picks]]

    def _decode(self, num_rows: int, new_tokens: int, context: int) -> torch.Tensor:
        frame = self.frames.device
        step = DeviceStep(self._single(num_rows, new_tokens, context), None)
        ids = frame.token_ids[: num_rows * new_tokens]
        if new_tokens == 1:
            ids = self._next_tokens(ids, frame.slots[:num_rows], self.last_tokens)
        return self._model.logits(self._model.forward(ids, self.attention, step).hidden)

    def hidden(self, shape: StepShape) -> torch.Tensor:
        """Hidden states of all tokens of a step whose frame is sent."""
        return self._forward(shape, None)

    def picked(self, hidden: torch.Tensor, shape: StepShape, num_drawing: int) -> torch.Tensor:
        """As `run`, of hidden states that are there already."""
        num_picks = num_drawing * (1 + shape.num_drafts)
        return self.logits(hidden[self.frames.device.picks[:num_picks]])

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """float32 [rows, vocab]."""
        return self._model.logits(hidden)

    def _general(self, shape: StepShape, num_picks: int) -> torch.Tensor:
        return self.logits(self._forward(shape, self.frames.device.picks[:num_picks]))

    def _forward(self, shape: StepShape, wanted: torch.Tensor | None) -> torch.Tensor:
        frame, num_single = self.frames.device, shape.num_single
        ids = frame.token_ids[: shape.num_tokens]
        if num_single:
            known = self._next_tokens(ids[:num_single], frame.slots[:num_single], self.last_tokens)
            ids = torch.cat((known, ids[num_single:]))
        single = self._single(num_single, 1, shape.context) if num_single else None
        several = self._several(shape) if num_single < shape.num_rows else None
        step = DeviceStep(single, several)
        return self._model.forward(ids, self.attention, step, (), wanted).hidden

    def _single(self, num_rows: int, new_tokens: int, context: int) -> Rows:
        return Rows(
            num_rows * new_tokens,
            self._tables(slice(0, num_rows), context),
            self.frames.device.lengths[:num_rows],
            self._starts[new_tokens][: num_rows + 1],
            new_tokens,
            context,
        )

    def _several(self, shape: StepShape) -> Rows:
        at = slice(shape.num_single, shape.num_rows)
        count = shape.num_rows - shape.num_single
        return Rows(
            shape.num_tokens - shape.num_single,
            self._tables(at, shape.context),
            self.frames.device.lengths[at],
            self.frames.device.starts[: count + 1],
            shape.max_new,
            shape.context,
            shape.runs,
        )

    def _tables(self, rows: slice, context: int) -> tuple[torch.Tensor, ...]:
        groups = range(self.limits.num_groups)
        return tuple(self.frames.tables(group, context)[rows] for group in groups)


def _ladder(most: int) -> list[int]:
    """Sizes up to the first that holds `most` rows, which is cut to it."""
    sizes: list[int] = list(LADDER)
    while sizes[-1] < most:
        sizes.append(sizes[-1] + 128)
    return [size for size in sizes if size < most] + [most]
