"""The attention backend over `rtp_kernels.paged_attention`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from rtp_core.api import (
    BoundAttention,
    HeadNorms,
    KVFormatId,
    KVGroup,
    KVMemory,
    ModelSpec,
    PlanRow,
    RopeSpec,
    Scoring,
)
from rtp_core.models.rope import inverse_frequencies
from rtp_kernels.paged_attention.compiled import compiled_attention
from rtp_kernels.paged_attention.plan import (
    KEY_TILE,
    AttentionPlan,
    Batch,
    Geometry,
    Row,
    RowKeys,
    consecutive,
    key_index,
    num_unseen,
    row_keys,
    slot_of,
)
from rtp_kernels.paged_attention.rotary import rotary_tables
from rtp_kernels.registry import resolve

Tables = dict[RopeSpec | None, tuple[torch.Tensor, torch.Tensor]]
LENGTH_SPREAD = 1.5
"""Pad single-token rows together while the longest is at most this times the mean."""


class StepAttention:
    """A step: position ids int64 [tokens], and one plan a kind of layer.

    `compiled` plans serve `run` where the compiled form takes every row; the others are made
    when they are first asked for.
    """

    __slots__ = ("_kinds", "_make", "compiled", "positions")

    def __init__(
        self,
        positions: torch.Tensor,
        compiled: tuple[Any, ...] | None,
        make: Callable[[], tuple[AttentionPlan, ...]],
    ) -> None:
        self.positions = positions
        self.compiled = compiled
        self._make = make
        self._kinds: tuple[AttentionPlan, ...] | None = None

    @property
    def kinds(self) -> tuple[AttentionPlan, ...]:
        """Plans of `rtp_kernels.paged_attention`."""
        if self._kinds is None:
            self._kinds = self._make()
        return self._kinds


class TorchAttention:
    """Reads dense blocks on any device torch has."""

    supported_formats = frozenset({KVFormatId.DENSE})

    def __init__(self, device: str) -> None:
        self._device = device

    def bind(self, spec: ModelSpec, memory: KVMemory, block_size: int) -> BoundAttention:
        """Bind to a model and its opened memory."""
        return BoundTorchAttention(spec, memory, block_size, self._device)


class _Kind(NamedTuple):
    """What layers must have in common to share a plan."""

    group: int
    rope: RopeSpec | None


class _Layer(NamedTuple):
    kind: int
    planes: tuple[torch.Tensor, torch.Tensor]
    geometry: Geometry


class BoundTorchAttention:
    """Plans once a step, runs once a layer."""

    def __init__(self, spec: ModelSpec, memory: KVMemory, block_size: int, device: str) -> None:
        self._device = device
        self._dtype = getattr(torch, spec.dtype)
        self._block_size = block_size
        self._attend = resolve("paged_attention", device, spec.dtype)
        self._exact = spec.dtype == "float32"
        self._unit = math.lcm(KEY_TILE, block_size) if self._exact else block_size
        self._groups = spec.kv_groups
        self._kinds: list[_Kind] = []
        self._layers: dict[int, _Layer] = {}
        for number, group in enumerate(spec.kv_groups):
            geometry = layer_geometry(spec, group, block_size)
            for layer in group.layers:
                kind = self._kind(_Kind(number, spec.rope_of(layer)))
                self._layers[layer] = _Layer(kind, memory.planes(layer), geometry)
        geometries = list({layer.geometry: None for layer in self._layers.values()})
        # The compiled form reads keys from the first on.
        on_cpu = device == "cpu" and not any(group.first_key for group in spec.kv_groups)
        self._compiled = compiled_attention(spec.dtype, geometries) if on_cpu else None
        self._frequencies = {
            kind.rope: inverse_frequencies(kind.rope).to(device) for kind in self._kinds
        }

    def plan(self, rows: Sequence[PlanRow]) -> StepAttention:
        """One plan for each pair of KV group and rotary embedding that some layer has."""
        positions = self._positions(rows)
        tables = {
            rope: rotary_tables(frequencies, positions, self._dtype, _factor(rope))
            for rope, frequencies in self._frequencies.items()
        }
        compiled = self._plan_compiled(rows, tables) if self._takes(rows) else None
        return StepAttention(positions, compiled, lambda: self._plan_kinds(rows, tables))

    def _takes(self, rows: Sequence[PlanRow]) -> bool:
        """Whether the compiled form serves all rows of a step."""
        takes = None if self._compiled is None else self._compiled.takes
        return takes is not None and all(
            takes(len(row.token_ids), tree=row.tree_parents is not None) for row in rows
        )

    def _plan_compiled(self, rows: Sequence[PlanRow], tables: Tables) -> tuple[Any, ...]:
        plan = self._compiled.plan  # pyright: ignore[reportOptionalMemberAccess]
        return tuple(
            plan([_row(row, group) for row in rows], self._block_size, *tables[rope])
            for group, rope in self._kinds
        )

    def _plan_kinds(self, rows: Sequence[PlanRow], tables: Tables) -> tuple[AttentionPlan, ...]:
        groups: dict[int, AttentionPlan] = {}
        plans: list[AttentionPlan] = []
        for group, rope in self._kinds:
            cos, sin = tables[rope]
            if group not in groups:
                groups[group] = self._plan_group(rows, group, cos, sin)
            plans.append(replace(groups[group], cos=cos, sin=sin))
        return tuple(plans)

    def run(
        self,
        qkv: torch.Tensor,
        layer: int,
        plan: StepAttention,
        norms: HeadNorms | None = None,
    ) -> torch.Tensor:
        """[tokens, (heads + 2 * kv_heads) * dim] -> [tokens, heads * dim]."""
        kind, planes, geometry = self._layers[layer]
        if plan.compiled is not None and self._compiled is not None:
            return self._compiled.run(qkv, planes, plan.compiled[kind], geometry, norms)
        return self._attend(qkv, planes, plan.kinds[kind], geometry, norms)

    def _kind(self, kind: _Kind) -> int:
        """Its number among the kinds, a new one if it is new."""
        if kind not in self._kinds:
            self._kinds.append(kind)
        return self._kinds.index(kind)

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
        kind, planes, geometry = self._layers[layer]
        geometry = replace(
            geometry, num_heads=q.shape[1], scale=scoring.scale, softcap=scoring.softcap
        )
        sinks = scoring.sinks
        if sinks is None:
            return self._attend((q, k, v), planes, plan.kinds[kind], geometry)
        lse = torch.empty(q.shape[:2], dtype=torch.float32, device=q.device)
        out = self._attend((q, k, v), planes, plan.kinds[kind], geometry, None, lse)
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
        self, plan_rows: Sequence[PlanRow], group: int, cos: torch.Tensor, sin: torch.Tensor
    ) -> AttentionPlan:
        rows = [_row(row, group) for row in plan_rows]
        batch = self._batch(rows, self._groups[group])
        slots, writers = self._slots(rows)
        keys: list[RowKeys] = []
        begin = 0
        for row in rows:
            if batch is None:
                skip = _skipped(row, self._groups[group], self._unit)
                keys.append(row_keys(row, begin, self._block_size, self._device, skip))
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

    def _batch(self, rows: Sequence[Row], group: KVGroup) -> Batch | None:
        """Single-token rows of similar length go together; never in float32 (exact form)."""
        if self._exact or len(rows) < 2 or any(row.num_new != 1 for row in rows):
            return None
        unseen = [_skipped(row, group, 1) for row in rows]
        lengths = [row.start + 1 - skip for row, skip in zip(rows, unseen, strict=True)]
        width = max(lengths)
        if width * len(rows) > LENGTH_SPREAD * sum(lengths):
            return None
        index = torch.zeros(len(rows), width, dtype=torch.int64, device=self._device)
        bias = torch.zeros(len(rows), 1, 1, width, dtype=self._dtype, device=self._device)
        for number, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            index[number, :length] = self._key_slots(row, unseen[number])
            bias[number, :, :, length:] = float("-inf")
        return Batch(index.flatten(), bias, width)

    def _key_slots(self, row: Row, skip: int) -> torch.Tensor:
        """Slots of the keys of a single-token row, without the first `skip`."""
        size, length = self._block_size, row.start + 1
        first_block = skip // size
        skip, length = skip - first_block * size, length - first_block * size
        blocks = row.blocks[first_block : first_block - (-length // size)]
        if consecutive(blocks):
            first = blocks[0] * size
            return torch.arange(first + skip, first + length, device=self._device)
        return key_index(blocks, length, size, self._device)[skip:]


def layer_geometry(spec: ModelSpec, group: KVGroup, block_size: int) -> Geometry:
    """Shape of attention in the layers of a group."""
    plane = group.planes[0]
    scale = spec.attention_scale
    return Geometry(
        spec.num_heads,
        plane.num_heads,
        plane.head_dim,
        block_size,
        plane.head_dim**-0.5 if scale is None else scale,
        group.sliding_window,
        spec.attention_softcap,
    )


def _factor(rope: RopeSpec | None) -> float:
    return 1.0 if rope is None else rope.attention_factor


def _skipped(row: Row, group: KVGroup, unit: int) -> int:
    """Leading keys of a row that none of its queries sees, as `num_unseen` counts them."""
    return max(group.first_key, num_unseen(row.start, group.sliding_window, unit))


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
