"""The receiving end of a loader: decode, restore row order, store."""

from __future__ import annotations

import threading

import torch

from rtp_core.api import Placement, WeightPlan
from rtp_core.errors import WeightLoadError
from rtp_core.loading.dequantize import decode


class TensorSink:
    """Allocates every destination once; each placement may arrive once, from any thread."""

    def __init__(self, plan: WeightPlan, device: str) -> None:
        self._parameters = {
            one.name: torch.empty(one.shape, dtype=getattr(torch, one.dtype), device=device)
            for one in plan.parameters
        }
        self._waiting = {(p.rule.destination, p.rule.row_offset) for p in plan.placements}
        self._lock = threading.Lock()

    def place(self, placement: Placement, data: memoryview) -> None:
        """`data` holds the tensor's bytes; it may be reused after return."""
        tensor, rule = placement.tensor, placement.rule
        self._claim(placement)
        if len(data) != tensor.num_bytes:
            raise WeightLoadError(
                f"{len(data)} bytes arrived, {tensor.num_bytes} belong to it",
                file=tensor.file,
                tensor=tensor.name,
            )
        try:
            values = decode(data, tensor.dtype, tensor.shape)
        except LookupError as error:
            raise WeightLoadError(
                f"dtype {tensor.dtype} cannot be loaded", file=tensor.file, tensor=tensor.name
            ) from error
        if tensor.unpermute_heads:
            values = unpermute(values, tensor.unpermute_heads)
        rows = slice(rule.row_offset, rule.row_offset + rule.num_rows)
        self._parameters[rule.destination][rows].copy_(values)

    def parameters(self) -> dict[str, torch.Tensor]:
        """All destinations. Raises WeightLoadError if one was not filled."""
        if self._waiting:
            names = ", ".join(sorted({name for name, _ in self._waiting})[:10])
            raise WeightLoadError(f"the loader left out {names}")
        return self._parameters

    def _claim(self, placement: Placement) -> None:
        key = (placement.rule.destination, placement.rule.row_offset)
        with self._lock:
            if key not in self._waiting:
                raise WeightLoadError(
                    "placed twice", file=placement.tensor.file, tensor=placement.tensor.name
                )
            self._waiting.discard(key)


def unpermute(values: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Undo llama.cpp's rotary row order: [heads, dim/2, 2] rows back to [heads, 2, dim/2]."""
    rows = values.shape[0]
    half = rows // num_heads // 2
    split = values.reshape(num_heads, half, 2, *values.shape[1:])
    return split.transpose(1, 2).reshape(values.shape)
