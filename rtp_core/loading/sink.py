"""The receiving end of a loader: restore row order, decode, store."""

from __future__ import annotations

import threading

import numpy as np
import torch

from rtp_core.api import Placement, WeightPlan
from rtp_core.errors import WeightLoadError
from rtp_core.loading.dequantize import decode_into


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
        if data.nbytes != tensor.num_bytes:
            raise WeightLoadError(
                f"{data.nbytes} bytes arrived, {tensor.num_bytes} belong to it",
                file=tensor.file,
                tensor=tensor.name,
            )
        raw = np.frombuffer(data, dtype=np.uint8)
        if tensor.unpermute_heads:
            raw = unpermute(raw.reshape(rule.num_rows, -1), tensor.unpermute_heads).reshape(-1)
        rows = slice(rule.row_offset, rule.row_offset + rule.num_rows)
        decode_into(torch.from_numpy(raw), tensor.dtype, self._parameters[rule.destination][rows])

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


def unpermute(rows: np.ndarray, num_heads: int) -> np.ndarray:
    """Undo llama.cpp's rotary row order: [heads, dim/2, 2] rows back to [heads, 2, dim/2].

    Rows are whole blocks in every file format, so bytes move as well as weights do.
    """
    split = rows.reshape(num_heads, -1, 2, *rows.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(rows.shape)
