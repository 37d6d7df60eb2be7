"""The receiving end of a loader: undo what the file did to rows and values, keep group codes."""

from __future__ import annotations

import threading

import numpy as np
import torch

from rtp_core.api import Placement, WeightPlan
from rtp_core.errors import WeightLoadError
from rtp_core.loading.codes import coded_parameters, copy_codes, empty_codes
from rtp_core.loading.dequantize import decode_into
from rtp_kernels.linear_weight import GroupCodes, LinearWeight

Parameters = dict[str, torch.Tensor | LinearWeight]
"""By destination name."""


class TensorSink:
    """Allocates every destination once; each placement may arrive once, from any thread."""

    def __init__(self, plan: WeightPlan, device: str, *, keep_codes: bool = False) -> None:
        self._parameters = {
            one.name: torch.empty(one.shape, dtype=getattr(torch, one.dtype), device=device)
            for one in plan.parameters
        }
        self._codes = _room_for_codes(plan) if keep_codes else {}
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
        begin, end = rule.row_offset, rule.row_offset + rule.num_rows
        source = torch.from_numpy(raw)
        rows = self._parameters[rule.destination][begin:end]
        decode_into(source, tensor.dtype, rows)
        if tensor.stored_offset:
            rows.sub_(tensor.stored_offset)
        if rule.destination in self._codes:
            copy_codes(source, tensor.dtype, self._codes[rule.destination].rows(begin, end))

    def parameters(self) -> Parameters:
        """All destinations. Raises WeightLoadError if one was not filled."""
        if self._waiting:
            names = ", ".join(sorted({name for name, _ in self._waiting})[:10])
            raise WeightLoadError(f"the loader left out {names}")
        coded = {
            name: LinearWeight(self._parameters[name], codes) for name, codes in self._codes.items()
        }
        return {**self._parameters, **coded}

    def _claim(self, placement: Placement) -> None:
        key = (placement.rule.destination, placement.rule.row_offset)
        with self._lock:
            if key not in self._waiting:
                raise WeightLoadError(
                    "placed twice", file=placement.tensor.file, tensor=placement.tensor.name
                )
            self._waiting.discard(key)


def _room_for_codes(plan: WeightPlan) -> dict[str, GroupCodes]:
    kept = coded_parameters(plan)
    return {
        one.name: empty_codes(one.shape, kept[one.name])
        for one in plan.parameters
        if one.name in kept
    }


def unpermute(rows: np.ndarray, num_heads: int) -> np.ndarray:
    """Undo llama.cpp's rotary row order: [heads, dim/2, 2] rows back to [heads, 2, dim/2].

    Rows are whole blocks in every file format, so bytes move as well as weights do.
    """
    split = rows.reshape(num_heads, -1, 2, *rows.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(rows.shape)
