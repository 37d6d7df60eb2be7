"""Weights stored as 8-bit floats (e4m3) with a scale a block, a row or a tensor."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rtp_core.loading.dequantize import weights_at_once
from rtp_kernels.linear_weight import GroupCodes

_E4M3 = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
"""Every value; looking them up takes a fifth of the time of torch's own conversion."""


@dataclass(frozen=True, slots=True)
class ScaledFloats:
    """w = value * scale of its block.

    `values` float8_e4m3fn [rows, columns]; `scale` float [row blocks, column blocks] for blocks of
    `block_rows` x `block_columns`, of which the last may be cut short.
    """

    values: torch.Tensor
    scale: torch.Tensor
    block_rows: int
    block_columns: int

    def write(self, out: torch.Tensor) -> None:
        """See `Unpacked`: products in float32."""
        rows, columns = self.values.shape
        scale = self.scale.float()
        if scale.shape[1] > 1:
            scale = scale.repeat_interleave(self.block_columns, dim=1)[:, :columns]
        step = max(1, weights_at_once(out.device) // columns)
        for begin in range(0, rows, step):
            values = _wide(self.values[begin : begin + step])
            block = torch.arange(begin, begin + len(values)) // self.block_rows
            out[begin : begin + step] = values.mul_(scale[block])

    def write_codes(self, out: GroupCodes) -> bool:
        """See `Unpacked`: floats are no group codes."""
        del out
        return False


def _wide(values: torch.Tensor) -> torch.Tensor:
    codes = values.view(torch.uint8).view(-1).int()
    return torch.index_select(_E4M3.to(codes.device), 0, codes).view(values.shape)
