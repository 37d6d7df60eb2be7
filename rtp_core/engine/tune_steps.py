"""A model's decode steps on a device, recorded and timed in any form of their kernels."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from triton.errors import TritonError

from rtp_core.engine.tune_search import Axis, Setting, digest
from rtp_core.engine.tune_slots import Slots
from rtp_core.execution.device.accelerator import Accelerator
from rtp_core.execution.device.programs import Programs
from rtp_kernels.gpu import tuned

log = logging.getLogger("rtp.engine")
_ROUND_S, _ROUNDS = 0.03, 3


class Texts(NamedTuple):
    """So many texts of `length` tokens, in `num_blocks` blocks of each KV group."""

    rows: int
    length: int
    num_blocks: int


class DeviceSteps:
    """`tune.Steps` of one new token a text."""

    def __init__(
        self, slots: Slots, programs: Programs, accelerator: Accelerator, texts: Texts
    ) -> None:
        self.name = slots.name
        self.context = programs.limits.context_of(texts.length)
        self._slots = slots
        self._programs = programs
        self._accelerator = accelerator
        self._document: tuned.Document = {"linear": {}, "attention": {}}
        _write(programs, texts, self.context)

    def use(self, document: tuned.Document) -> None:
        """What serves beside the forms that are tried."""
        self._document = document
        tuned.use(document)

    def start(self, rows: int) -> Setting:
        """See `tune.Steps`."""
        tuned.use(self._document)
        return self._slots.serving(rows, self.context)

    def axes(self, rows: int) -> Sequence[Axis]:
        """See `tune.Steps`."""
        return self._slots.axes(rows, self.context)

    @torch.inference_mode()
    def compile(self, rows: int, settings: Sequence[Setting]) -> None:
        """In processes; see `Accelerator.prepare`."""

        def everything() -> None:
            for setting in settings:
                try:
                    self._run(rows, setting)
                except (RuntimeError, TritonError) as error:
                    self._refused(setting, error)
            tuned.use(self._document)

        digests = " ".join(map(digest, settings))
        self._accelerator.prepare(everything, f"tune {self.name} {rows} {digests}")

    @torch.inference_mode()
    def seconds(self, rows: int, setting: Setting) -> float:
        """The median of some rounds of replays."""
        try:
            self._run(rows, setting)
            return self._timed(self._programs.record(rows, 1, self.context))
        except (RuntimeError, TritonError) as error:
            self._refused(setting, error)
            return math.inf

    def _refused(self, setting: Setting, error: Exception) -> None:
        """A form that does not fit the device; what broke the device itself is raised here."""
        log.debug("form_left_out setting=%s error=%r", digest(setting), str(error))
        self._accelerator.free_bytes()

    def _run(self, rows: int, setting: Setting) -> None:
        tuned.use(tuned.with_setting(self._document, setting, rows, self.context))
        self._programs.attention.reserve([(rows, 1, self.context)])
        self._programs.run_once(rows, 1, self.context)

    def _timed(self, replay: Callable[[], None]) -> float:
        self._replayed(replay, 2)
        count = int(_ROUND_S / max(self._replayed(replay, 2), 1e-6))
        count = max(2, min(count, 200))
        return statistics.median(self._replayed(replay, count) for _ in range(_ROUNDS))

    def _replayed(self, replay: Callable[[], None], count: int) -> float:
        span = self._accelerator.begin()
        for _ in range(count):
            replay()
        span.end()
        return span.wait() / count


def _write(programs: Programs, texts: Texts, context: int) -> None:
    """Into the device's frame: texts whose blocks lie anywhere, as they do in a server, and are
    shared if there are too few."""
    frames, rows = programs.frames, texts.rows
    frames.device.lengths[:rows] = texts.length
    used = -(-texts.length // programs.limits.block_size)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(texts.num_blocks, generator=generator, dtype=torch.int32)
    blocks = order[torch.arange(rows * used) % texts.num_blocks].view(rows, used)
    for group in range(programs.limits.num_groups):
        table = frames.tables(group, context)[:rows]
        table[:, :used] = blocks.to(table.device)
