"""A step's input: what the host writes, and the tensors at fixed addresses that the device reads.

Rows with one new token come first, the others after them; tokens lie in the order of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    the blocks a table has. Where rows have drafts, `num_drafts` is the room a row has for them,
    and `verifies` says that every row is one known token and its drafts, padded to that.
    """

    num_rows: int
    num_single: int
    num_tokens: int
    max_new: int
    context: int
    width: int
    runs: tuple[tuple[int, int], ...]
    num_drafts: int = 0
    verifies: bool = False

    @property
    def new_tokens(self) -> int:
        """New tokens of every row, padding included; 0 if rows differ."""
        if self.verifies:
            return 1 + self.num_drafts
        return 1 if self.num_single == self.num_rows else 0


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of every step. `contexts` ascend to the longest text, drafts included."""

    max_rows: int
    max_tokens: int
    block_size: int
    num_groups: int
    contexts: tuple[int, ...]
    max_drafts: int = 0

    def context_of(self, length: int) -> int:
        """The smallest of `contexts` that holds `length` tokens."""
        return next(context for context in self.contexts if context >= length)

    def width(self, context: int) -> int:
        """Blocks of a table for `context` tokens."""
        return -(-context // self.block_size)


class Frame:
    """One int32 vector, on the host and on the device.

    slots, lengths [max_rows] by row; positions, draws [max_rows] by row that draws: the index of
    what it draws, and its slot; picks [max_rows * (1 + max_drafts)]: tokens whose logits are
    wanted; drafts [max_rows * max_drafts]: tokens to verify, -1 for none; starts [max_rows + 1];
    token_ids [max_tokens, padding of drafts included].
    """

    def __init__(self, limits: Limits, storage: torch.Tensor) -> None:
        self.storage = storage
        rows, parts = limits.max_rows, []
        sizes = [rows] * 4 + [rows * (1 + limits.max_drafts), rows * limits.max_drafts, rows + 1]
        at = 0
        for size in sizes:
            parts.append(storage[at : at + size])
            at += size
        self.slots, self.lengths, self.positions, self.draws = parts[:4]
        self.picks, self.drafts, self.starts = parts[4:]
        self.header = at
        self.token_ids = storage[at:]

    @staticmethod
    def size(limits: Limits) -> int:
        """Length of the vector."""
        rows, drafts = limits.max_rows, limits.max_drafts
        tokens = max(limits.max_tokens, rows * (1 + drafts))
        return 4 * rows + rows * (1 + 2 * drafts) + rows + 1 + tokens


class FrameRing:
    """Host frames, one more than steps in flight: the device may still read the last ones.

    `device` is the one frame that programs read; `slots` are the places of the batch. `spare`
    is a block of each KV group for what nobody reads.
    """

    def __init__(self, limits: Limits, accelerator: Accelerator, spare: Sequence[int]) -> None:
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
        self.slots = BatchSlots(limits.max_rows, widest, spare)
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

    def send(self, rows: Sequence[PlanRow], padded: Callable[[StepShape], int]) -> StepShape:
        """Write a step's input and queue its transfer. `rows` are ordered: single tokens first.

        Rows that are alike are followed by empty ones, up to as many as `padded` says.
        """
        self._turn = (self._turn + 1) % len(self._hosts)
        host = self._hosts[self._turn]
        places = [self.slots[row.sequence_id] for row in rows]
        for row, slot in zip(rows, places, strict=True):
            self.slots.extend(row, slot)
        shape = write(host, rows, places, self._limits)
        most, each = padded(shape), max(1, shape.new_tokens)
        if most > len(rows):
            host.lengths[len(rows) : most] = 0
            host.slots[len(rows) : most] = 0
            host.token_ids[shape.num_tokens : most * each] = 0
        used = host.header + max(shape.num_tokens, most * each)
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


def write(host: Frame, rows: Sequence[PlanRow], places: Sequence[int], limits: Limits) -> StepShape:
    """A step's input into a frame of the host; block tables travel by themselves."""
    host.slots.numpy()[: len(rows)] = places
    drafted = any(row.num_drafts for row in rows)
    if drafted:
        _write_drafts(host, [row for row in rows if row.samples], limits.max_drafts)
        if all(row.samples and len(row.token_ids) == 1 + row.num_drafts for row in rows):
            return _write_alike(host, rows, places, limits)
    counts = [len(row.token_ids) for row in rows]
    ends = np.cumsum(counts)
    num_tokens, num_single = int(ends[-1]), counts.count(1)
    lengths = [row.start + count for row, count in zip(rows, counts, strict=True)]
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
    drafts = np.array([rows[number].num_drafts for number in drawing], dtype=np.int64)
    host.positions.numpy()[: len(drawing)] = [lengths[number] for number in drawing] - drafts
    host.draws.numpy()[: len(drawing)] = [places[number] for number in drawing]
    room = limits.max_drafts if drafted else 0
    first = ends[drawing] - 1 - drafts
    after = np.minimum(np.arange(1 + room), drafts[:, None])
    host.picks.numpy()[: len(drawing) * (1 + room)] = (first[:, None] + after).ravel()
    context = limits.context_of(max(lengths))
    runs = zip(counts[num_single:], (row.start for row in rows[num_single:]), strict=True)
    return StepShape(
        len(rows),
        num_single,
        num_tokens,
        max(counts),
        context,
        limits.width(context),
        tuple(runs),
        room,
    )


def _write_alike(
    host: Frame, rows: Sequence[PlanRow], places: Sequence[int], limits: Limits
) -> StepShape:
    """Every row as one known token and `max_drafts` drafts; what is no draft computes nothing
    that anybody reads."""
    each = 1 + limits.max_drafts
    ids = np.zeros((len(rows), each), dtype=np.int32)
    for number, row in enumerate(rows):
        ids[number, : len(row.token_ids)] = row.token_ids
    starts = np.array([row.start for row in rows], dtype=np.int32)
    host.token_ids.numpy()[: ids.size] = ids.ravel()
    host.lengths.numpy()[: len(rows)] = starts + each
    host.positions.numpy()[: len(rows)] = starts + 1
    host.draws.numpy()[: len(rows)] = places
    context = limits.context_of(int(starts.max()) + each)
    width = limits.width(context)
    return StepShape(
        len(rows), 0, ids.size, each, context, width, (), limits.max_drafts, verifies=True
    )


def _write_drafts(host: Frame, drawing: Sequence[PlanRow], room: int) -> None:
    drafts = np.full((len(drawing), room), -1, dtype=np.int32)
    for number, row in enumerate(drawing):
        if row.num_drafts:
            drafts[number, : row.num_drafts] = row.token_ids[-row.num_drafts :]
    host.drafts.numpy()[: drafts.size] = drafts.ravel()
