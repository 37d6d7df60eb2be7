"""The attention backend of CUDA devices: Triton kernels over block tables on the device.

Models that bring their own attention call (`attend`) are served by the torch backend.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch

from rtp_core.api import (
    BoundAttention,
    HeadNorms,
    KVFormatId,
    KVMemory,
    ModelSpec,
    PlanRow,
    RopeSpec,
    Scoring,
)
from rtp_core.execution.device.step import DeviceStep, Rows
from rtp_core.execution.torch_attention import TorchAttention, layer_geometry
from rtp_core.models.rope import inverse_frequencies
from rtp_kernels.paged_attention.plan import Geometry
from rtp_kernels.paged_attention.rotary import rotary_rows
from rtp_kernels.paged_attention.tables import MAX_NEW_TOKENS, StepTables
from rtp_kernels.registry import resolve
from rtp_kernels.step_attention.reference import StepAttention


class TritonAttention:
    """Reads dense blocks on CUDA devices."""

    supported_formats = frozenset({KVFormatId.DENSE})

    def __init__(self, device: str) -> None:
        self._device = device

    def bind(self, spec: ModelSpec, memory: KVMemory, block_size: int) -> BoundAttention:
        """Bind to a model and its opened memory."""
        return BoundTritonAttention(spec, memory, block_size, self._device)


class _Layer(NamedTuple):
    group: int
    planes: tuple[torch.Tensor, torch.Tensor]
    geometry: Geometry
    rotary: torch.Tensor


class BoundTritonAttention:
    """Runs a layer over a DeviceStep; what torch plans, torch runs."""

    def __init__(self, spec: ModelSpec, memory: KVMemory, block_size: int, device: str) -> None:
        self._device = device
        self._torch = TorchAttention(device).bind(spec, memory, block_size)
        self._kernels: StepAttention = resolve("step_attention", device, spec.dtype)
        rotary: dict[RopeSpec | None, torch.Tensor] = {}
        self._layers: dict[int, _Layer] = {}
        for number, group in enumerate(spec.kv_groups):
            geometry = layer_geometry(spec, group, block_size)
            for layer in group.layers:
                rope = spec.rope_of(layer)
                if rope not in rotary:
                    rotary[rope] = _rotary(rope, spec.max_model_len + MAX_NEW_TOKENS, device)
                self._layers[layer] = _Layer(number, memory.planes(layer), geometry, rotary[rope])

    def run(
        self, qkv: torch.Tensor, layer: int, plan: Any, norms: HeadNorms | None = None
    ) -> torch.Tensor:
        """[tokens, (heads + 2 * kv_heads) * dim] -> [tokens, heads * dim]."""
        if not isinstance(plan, DeviceStep):
            return self._torch.run(qkv, layer, plan, norms)
        at, parts = self._layers[layer], []
        if plan.single is not None:
            parts.append(self._decode(qkv[: plan.single.num_tokens], at, plan.single, norms))
        if plan.several is not None:
            rest = qkv[qkv.shape[0] - plan.several.num_tokens :]
            parts.append(self._ragged(rest, at, plan.several, norms))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def reserve(self, shapes: Iterable[tuple[int, int, int]]) -> None:
        """See `step.DeviceAttention`."""
        geometries = list({layer.geometry: None for layer in self._layers.values()})
        self._kernels.reserve(geometries, shapes, self._device)

    def reset(self) -> None:
        """See `step.DeviceAttention`."""
        self._kernels.reset()

    def plan(self, rows: Sequence[PlanRow]) -> Any:
        """As torch plans it."""
        return self._torch.plan(rows)

    def positions(self, plan: Any) -> torch.Tensor:
        """As torch has it."""
        return self._torch.positions(plan)

    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        layer: int,
        plan: Any,
        scoring: Scoring,
    ) -> torch.Tensor:
        """As torch does it."""
        return self._torch.attend(q, k, v, layer, plan, scoring)

    def _decode(
        self, qkv: torch.Tensor, at: _Layer, rows: Rows, norms: HeadNorms | None
    ) -> torch.Tensor:
        tables = _tables(rows, at)
        return self._kernels.decode(qkv, at.planes, tables, at.geometry, norms, rows.context)

    def _ragged(
        self, qkv: torch.Tensor, at: _Layer, rows: Rows, norms: HeadNorms | None
    ) -> torch.Tensor:
        tables = _tables(rows, at)
        self._kernels.store(qkv, at.planes, tables, at.geometry, norms, rows.max_new)
        return self._kernels.ragged(qkv, at.planes, tables, at.geometry, rows.max_new, rows.runs)


def _tables(rows: Rows, layer: _Layer) -> StepTables:
    return StepTables(
        rows.tables[layer.group], rows.lengths, rows.starts, None, None, None, layer.rotary
    )


def _rotary(rope: RopeSpec | None, max_position: int, device: str) -> torch.Tensor:
    factor = 1.0 if rope is None else rope.attention_factor
    return rotary_rows(inverse_frequencies(rope), max_position, factor).to(device)
