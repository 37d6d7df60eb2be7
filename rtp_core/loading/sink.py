"""The receiving end of a loader: undo what the file did to weights, join parts, keep codes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

import numpy as np
import torch

from rtp_core.api import Placement, WeightPlan, WeightRule
from rtp_core.errors import WeightLoadError
from rtp_core.loading.codes import coded_parameters, copy_codes, empty_codes
from rtp_core.loading.dequantize import decode_into
from rtp_core.loading.gathering import Gathering
from rtp_core.loading.quantized.tensor import PartPlacement
from rtp_kernels.linear_weight import GroupCodes, LinearWeight

log = logging.getLogger("rtp.loading")
Parameters = dict[str, torch.Tensor | LinearWeight]
"""By destination name."""


def allocate(plan: WeightPlan, device: str) -> dict[str, torch.Tensor]:
    """Every destination, not filled yet."""
    return {
        one.name: torch.empty(one.shape, dtype=getattr(torch, one.dtype), device=device)
        for one in plan.parameters
    }


class TensorSink:
    """Allocates every destination once; each placement may arrive once, from any thread.

    `into` holds destinations that `allocate` made before.
    """

    def __init__(
        self,
        plan: WeightPlan,
        device: str,
        *,
        keep_codes: bool = False,
        into: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self._parameters = allocate(plan, device) if into is None else dict(into)
        self._codes = _room_for_codes(plan) if keep_codes else {}
        self._waiting = {_key(placement) for placement in plan.placements}
        self._gathering = Gathering()
        self._dense_only: set[str] = set()
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
        if isinstance(placement, PartPlacement):
            self._place_part(placement, torch.from_numpy(raw))
            return
        if tensor.unpermute_heads:
            raw = unpermute(raw.reshape(rule.num_rows, -1), tensor.unpermute_heads).reshape(-1)
        begin, end = _bounds(rule)
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
            names = ", ".join(sorted({name for name, *_ in self._waiting})[:10])
            raise WeightLoadError(f"the loader left out {names}")
        coded = {
            name: LinearWeight(self._parameters[name], codes)
            for name, codes in self._codes.items()
            if name not in self._dense_only
        }
        return {**self._parameters, **coded}

    def _place_part(self, placement: PartPlacement, raw: torch.Tensor) -> None:
        rule = placement.rule
        begin, end = _bounds(rule)
        rows = self._parameters[rule.destination][begin:end]
        unpacked = self._gathering.add(placement, raw, rows)
        if unpacked is None:
            return
        unpacked.write(rows)
        codes = self._codes.get(rule.destination)
        if codes is not None and not unpacked.write_codes(codes.rows(begin, end)):
            log.warning(
                "codes_not_kept tensor=%s reason='scales or order do not fit the group format'",
                placement.whole.name,
            )
            self._dense_only.add(rule.destination)

    def _claim(self, placement: Placement) -> None:
        key = _key(placement)
        with self._lock:
            if key not in self._waiting:
                raise WeightLoadError(
                    "placed twice", file=placement.tensor.file, tensor=placement.tensor.name
                )
            self._waiting.discard(key)


def _bounds(rule: WeightRule) -> tuple[int, int]:
    return rule.row_offset, rule.row_offset + rule.num_rows


def _key(placement: Placement) -> tuple[str, int, str]:
    part = placement.part if isinstance(placement, PartPlacement) else ""
    return placement.rule.destination, placement.rule.row_offset, part


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
