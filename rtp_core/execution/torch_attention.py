"""The attention backend over `rtp_kernels.paged_attention`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from rtp_core.api import BoundAttention, KVFormatId, KVMemory, ModelSpec, PlanRow, Scoring
from rtp_core.models.rope import inverse_frequencies
from rtp_kernels.paged_attention.plan import (
    AttentionPlan,
    Batch,
    Geometry,
    Row,
    RowKeys,
    consecutive,
    key_index,
    row_keys,
    slot_of,
)
from rtp_kernels.paged_attention.rotary import rotary_tables
from rtp_kernels.registry import resolve

LENGTH_SPREAD = 1.5
"""Pad single-token rows together while the longest is at most this times the mean."""


class StepAttention(NamedTuple):
    """A step: one plan a KV group, and the position ids int64 [tokens]."""

    groups: tuple[AttentionPlan, ...]
    positions: torch.Tensor


class TorchAttention:
    """Reads dense blocks on any device torch has."""

    supported_formats = frozenset({KVFormatId.DENSE})

    def __init__(self, device: str) -> None:
        self._device = device

    def bind(self, spec: ModelSpec, memory: KVMemory, block_size: int) -> BoundAttention:
        """Bind to a model and its opened memory."""
        return BoundTorchAttention(spec, memory, block_size, self._device)


class BoundTorchAttention:
    """Plans once a step, runs once a layer."""

    def __init__(self, spec: ModelSpec, memory: KVMemory, block_size: int, device: str) -> None:
        self._device = device
        self._dtype = getattr(torch, spec.dtype)
        self._block_size = block_size
        self._inv_freq = inverse_frequencies(spec.rope).to(device)
        self._attend = resolve("paged_attention", device, spec.dtype)
        self._exact = spec.dtype == "float32"
        self._group_of: dict[int, int] = {}
        self._geometry: dict[int, Geometry] = {}
        for number, group in enumerate(spec.kv_groups):
            geometry = Geometry(
                spec.num_heads,
                group.planes[0].num_heads,
                group.planes[0].head_dim,
                block_size,
                group.planes[0].head_dim ** -0.5,
                group.sliding_window,
            )
            for layer in group.layers:
                self._group_of[layer] = number
                self._geometry[layer] = geometry
        self._planes = {layer: memory.planes(layer) for layer in self._geometry}
        self._num_groups = len(spec.kv_groups)

    def plan(self, rows: Sequence[PlanRow]) -> StepAttention:
        """One plan a KV group; they differ in block tables only."""
        positions = self._positions(rows)
        cos, sin = rotary_tables(self._inv_freq, positions, self._dtype)
        groups = tuple(
            self._plan_group([_row(row, group) for row in rows], cos, sin)
            for group in range(self._num_groups)
        )
        return StepAttention(groups, positions)

    def run(
        self,
        qkv: torch.Tensor,
        layer: int,
        plan: StepAttention,
        norms: tuple[torch.Tensor, torch.Tensor, float] | None = None,
    ) -> torch.Tensor:
        """[tokens, (heads + 2 * kv_heads) * dim] -> [tokens, heads * dim]."""
        group = plan.groups[self._group_of[layer]]
        return self._attend(qkv, self._planes[layer], group, self._geometry[layer], norms)

    def positions(self, plan: StepAttention) -> torch.Tensor:
        """int64 [tokens]."""
        return plan.positions

    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        layer: int,
        plan: StepAttention,
        scoring: Scoring,
    ) -> torch.Tensor:
        """See `api.BoundAttention`. A sink adds exp(sink) to the sum below every weight."""
        geometry = replace(self._geometry[layer], num_heads=q.shape[1], scale=scoring.scale)
        group, planes, sinks = (
            plan.groups[self._group_of[layer]],
            self._planes[layer],
            scoring.sinks,
        )
        if sinks is None:
            return self._attend((q, k, v), planes, group, geometry)
        lse = torch.empty(q.shape[:2], dtype=torch.float32, device=q.device)
        out = self._attend((q, k, v), planes, group, geometry, None, lse)
        share = torch.sigmoid(lse - sinks.float())
        return (out.view(q.shape) * share[..., None]).to(q.dtype).flatten(1)

    def _positions(self, rows: Sequence[PlanRow]) -> torch.Tensor:
        positions: list[int] = []
        for row in rows:
            if row.positions is not None:
                positions.extend(row.positions[0])
            elif row.tree_parents is not None:
                known = len(row.token_ids) - row.num_drafts
                depths = _depths(_row_parents(row, known))
                positions.extend(row.start + depth for depth in depths)
            else:
                positions.extend(range(row.start, row.start + len(row.token_ids)))
        return torch.tensor(positions, dtype=torch.int64, device=self._device)

    def _plan_group(
        self, rows: Sequence[Row], cos: torch.Tensor, sin: torch.Tensor
    ) -> AttentionPlan:
        batch = self._batch(rows)
        slots, writers = self._slots(rows)
        keys: list[RowKeys] = []
        begin = 0
        for row in rows:
            if batch is None:
                keys.append(row_keys(row, begin, self._block_size, self._device))
            begin += row.num_new
        one_run = writers is None and slots[-1] - slots[0] == len(slots) - 1
        one_run = one_run and slots == list(range(slots[0], slots[-1] + 1))
        return AttentionPlan(
            num_tokens=begin,
            rows=tuple(keys),
            slots=torch.tensor(slots, dtype=torch.int64, device=self._device),
            first_slot=slots[0] if one_run else -1,
            writers=writers,
            cos=cos,
            sin=sin,
            batch=batch,
        )

    def _slots(self, rows: Sequence[Row]) -> tuple[list[int], torch.Tensor | None]:
        slots: list[int] = []
        writers: list[int] = []
        begin = 0
        for row in rows:
            if row.writes:
                slots.extend(
                    slot_of(row.blocks, position, self._block_size)
                    for position in range(row.start, row.start + row.num_new)
                )
                writers.extend(range(begin, begin + row.num_new))
            begin += row.num_new
        if len(writers) == begin:
            return slots, None
        return slots, torch.tensor(writers, dtype=torch.int64, device=self._device)

    def _batch(self, rows: Sequence[Row]) -> Batch | None:
        """Single-token rows of similar length go together; never in float32 (exact form)."""
        if self._exact or len(rows) < 2 or any(row.num_new != 1 for row in rows):
            return None
        if any(geometry.window is not None for geometry in self._geometry.values()):
            return None
        lengths = [row.start + 1 for row in rows]
        width = max(lengths)
        if width * len(rows) > LENGTH_SPREAD * sum(lengths):
            return None
        index = torch.zeros(len(rows), width, dtype=torch.int64, device=self._device)
        bias = torch.zeros(len(rows), 1, 1, width, dtype=self._dtype, device=self._device)
        for number, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            index[number, :length] = self._key_slots(row, length)
            bias[number, :, :, length:] = float("-inf")
        return Batch(index.flatten(), bias, width)

    def _key_slots(self, row: Row, length: int) -> torch.Tensor:
        blocks = row.blocks[: -(-length // self._block_size)]
        if consecutive(blocks):
            first = blocks[0] * self._block_size
            return torch.arange(first, first + length, device=self._device)
        return key_index(blocks, length, self._block_size, self._device)


def _row(row: PlanRow, group: int) -> Row:
    num_new = len(row.token_ids)
    parents = None
    if row.tree_parents is not None:
        parents = _row_parents(row, num_new - row.num_drafts)
    return Row(row.start, num_new, row.block_tables[group], parents, row.writes_kv)


def _row_parents(row: PlanRow, num_known: int) -> list[int]:
    """Parents within the row: known tokens form a chain, drafts hang below its end."""
    chain = list(range(-1, num_known - 1))
    drafts = [num_known + parent for parent in row.tree_parents or ()]
    return chain + drafts


def _depths(parents: Sequence[int]) -> list[int]:
    depths: list[int] = []
    for parent in parents:
        depths.append(0 if parent < 0 else depths[parent] + 1)
    return depths
