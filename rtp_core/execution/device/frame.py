"""A step's input: what the host writes, and the tensors at fixed addresses that the device reads.

Rows with one new token come first, the others after them; tokens lie in the order of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rtp_core.api import PlanRow, StepPlan
from rtp_core.execution.device.accelerator import Accelerator
from rtp_core.execution.device.slots import BatchSlots


@dataclass(frozen=True, slots=True)
class StepShape:
    """What the host knows of a step: it decides which program runs.

    The first `num_single` of `num_rows` rows have one new token; `max_new` is the most of the
    others, and `runs` their (new, cached) tokens. `context` is a bound of all lengths, `width`
    the blocks a table has.
    """

    num_rows: int
    num_single: int
    num_tokens: int
    max_new: int
    context: int
    width: int
    runs: tuple[tuple[int, int], ...]

    @property
    def decodes(self) -> bool:
        """True when every row has one new token."""
        return self.num_single == self.num_rows


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of every step. `contexts` ascend to the longest text."""

    max_rows: int
    max_tokens: int
    block_size: int
    num_groups: int
    contexts: tuple[int, ...]

    def context_of(self, length: int) -> int:
        """The smallest of `contexts` that holds `length` tokens."""
        return next(context for context in self.contexts if context >= length)

    def width(self, context: int) -> int:
        """Blocks of a table for `context` tokens."""
        return -(-context // self.block_size)


class Frame:
    """One int32 vector, on the host and on the device.

    slots, lengths [max_rows] by row; picks, positions, draws [max_rows] by row that draws: the
    token whose logits are wanted, the index of what it draws, and the row's slot; starts
    [max_rows + 1]; token_ids [max_tokens].
    """

    def __init__(self, limits: Limits, storage: torch.Tensor) -> None:
        self.storage = storage
        rows = limits.max_rows
        self.slots = storage[:rows]
        self.lengths = storage[rows : 2 * rows]
        self.picks = storage[2 * rows : 3 * rows]
        self.positions = storage[3 * rows : 4 * rows]
        self.draws = storage[4 * rows : 5 * rows]
        self.starts = storage[5 * rows : 6 * rows + 1]
        self.header = 6 * rows + 1
        self.token_ids = storage[self.header :]

    @staticmethod
    def size(limits: Limits) -> int:
        """Length of the vector."""
        return 6 * limits.max_rows + 1 + limits.max_tokens


class FrameRing:
    """Host frames, one more than steps in flight: the device may still read the last ones.

    `device` is the one frame that programs read; `slots` are the places of the batch.
    """

    def __init__(self, limits: Limits, accelerator: Accelerator) -> None:
        self._limits = limits
        count = accelerator.most_in_flight + 1
        size = Frame.size(limits)
        widest = limits.width(limits.contexts[-1])
        self._hosts = [
            Frame(limits, accelerator.host_buffer((size,), torch.int32)) for _ in range(count)
        ]
        self._host_tables = [
            accelerator.host_buffer((limits.num_groups, limits.max_rows * widest), torch.int32)
            for _ in range(count)
        ]
        self._turn = 0
        self.slots = BatchSlots(limits.max_rows, widest, limits.num_groups)
        self.device = Frame(limits, torch.zeros(size, dtype=torch.int32, device=accelerator.device))
        self._tables = torch.zeros(
            (limits.num_groups, limits.max_rows * widest),
            dtype=torch.int32,
            device=accelerator.device,
        )

    def tables(self, group: int, context: int) -> torch.Tensor:
        """int32 [max_rows, width of the context] at a fixed address; contexts share memory."""
        width = self._limits.width(context)
        return self._tables[group, : self._limits.max_rows * width].view(-1, width)

    def send(self, rows: Sequence[PlanRow], padded_rows: int) -> StepShape:
        """Write a step's input and queue its transfer. `rows` are ordered: single tokens first.

        Decoding rows are followed by empty ones up to `padded_rows`.
        """
        self._turn = (self._turn + 1) % len(self._hosts)
        host = self._hosts[self._turn]
        places = [self.slots[row.sequence_id] for row in rows]
        for row, slot in zip(rows, places, strict=True):
            self.slots.extend(row, slot)
        shape = _write(host, rows, places, self._limits)
        end = max(shape.num_tokens, padded_rows)
        if padded_rows > len(rows):
            host.lengths[len(rows) : padded_rows] = 0
            host.token_ids[len(rows) : padded_rows] = 0
            host.slots[len(rows) : padded_rows] = 0
        used = host.header + end
        self.device.storage[:used].copy_(host.storage[:used], non_blocking=True)
        count = len(rows) * shape.width
        for group in range(self._limits.num_groups):
            table = self._host_tables[self._turn][group, :count]
            self.slots.gather(group, places, table.numpy().reshape(len(rows), shape.width))
            self._tables[group, :count].copy_(table, non_blocking=True)
        return shape


def in_order(plan: StepPlan) -> list[PlanRow]:
    """Rows with one new token first; of the others, alike ones side by side, to share a call."""
    if all(len(row.token_ids) == 1 for row in plan.rows):
        return list(plan.rows)
    return sorted(plan.rows, key=_order)


def _order(row: PlanRow) -> tuple[int, int]:
    """Single tokens stay as they are among each other."""
    new = len(row.token_ids)
    return new, row.start if new > 1 else 0


def _write(
    host: Frame, rows: Sequence[PlanRow], places: Sequence[int], limits: Limits
) -> StepShape:
    counts = [len(row.token_ids) for row in rows]
    ends = np.cumsum(counts)
    num_tokens, num_single = int(ends[-1]), counts.count(1)
    lengths = [row.start + count for row, count in zip(rows, counts, strict=True)]
    host.slots.numpy()[: len(rows)] = places
    host.lengths.numpy()[: len(rows)] = lengths
    ids: list[int] = []
    for row in rows:
        ids.extend(row.token_ids)
    host.token_ids.numpy()[:num_tokens] = ids
    if num_single < len(rows):
        starts = host.starts.numpy()
        starts[0] = 0
        starts[1 : len(rows) - num_single + 1] = ends[num_single:] - num_single
    drawing = [number for number, row in enumerate(rows) if row.samples]
    host.picks.numpy()[: len(drawing)] = ends[drawing] - 1
    host.positions.numpy()[: len(drawing)] = [lengths[number] for number in drawing]
    host.draws.numpy()[: len(drawing)] = [places[number] for number in drawing]
    context = limits.context_of(max(lengths))
    return StepShape(
        len(rows),
        num_single,
        num_tokens,
        max(counts),
        context,
        limits.width(context),
        tuple(zip(counts[num_single:], (row.start for row in rows[num_single:]), strict=True)),
    )
