"""Weights stored as whole numbers with a scale and a zero point a group: 2 to 8 bits."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rtp_core.loading.dequantize import weights_at_once
from rtp_kernels.linear_weight import GROUP, GroupCodes

_HALF_EPS = 2.0**-11


@dataclass(frozen=True, slots=True)
class IntegerGroups:
    """w = (q - zero) * scale.

    `q` uint8 [rows, columns]; `scale` and `zero` float32 [rows, groups], zeros whole numbers.
    `index` gives each column its group; without it groups are equal runs of columns.
    """

    q: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor
    index: torch.Tensor | None = None

    def write(self, out: torch.Tensor) -> None:
        """See `Unpacked`: differences are exact in float32 and rounded once, by the scale."""
        rows, columns = self.q.shape
        step = max(1, weights_at_once(out.device) // columns)
        for begin in range(0, rows, step):
            out[begin : begin + step] = self._rows(slice(begin, begin + step))

    def write_codes(self, out: GroupCodes) -> bool:
        """See `Unpacked`.

        Scales are rounded to float16 where the file holds wider ones, and so is zero * scale,
        by at most 2^-11 of itself; where that would be more the answer is False.
        """
        if self.index is not None:
            return False
        scale = self.scale.half()
        minimum = scale.float().mul(self.zero).neg()
        if not _fits(self.scale) or not _fits(minimum):
            return False
        repeats = out.scale.shape[1] // scale.shape[1]
        out.q.copy_(self.q)
        out.scale.copy_(scale.repeat_interleave(repeats, dim=1))
        out.minimum.copy_(minimum.repeat_interleave(repeats, dim=1))
        return True

    def _rows(self, at: slice) -> torch.Tensor:
        q, scale, zero = self.q[at].float(), self.scale[at], self.zero[at]
        if self.index is not None:
            return q.sub_(zero[:, self.index]).mul_(scale[:, self.index])
        groups = q.view(*scale.shape, -1)
        return groups.sub_(zero[..., None]).mul_(scale[..., None]).view(q.shape)


def grouped(
    q: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor | int,
    index: torch.Tensor | None = None,
) -> IntegerGroups:
    """`scale` [rows, groups] or one for all; `zero` alike or one number.

    Raises ValueError when `index` names groups that there are not.
    """
    wide = scale.float()
    wide = wide.view(1, 1).expand(len(q), 1) if wide.numel() == 1 else wide.view(len(q), -1)
    zeros = torch.as_tensor(zero, dtype=torch.float32)
    zeros = zeros.expand(wide.shape) if zeros.numel() == 1 else zeros.view(wide.shape)
    return IntegerGroups(q, wide, zeros, _out_of_order(index, q.shape[1], wide.shape[1]))


def code_bits(bits: int, columns: int, groups: int) -> int | None:
    """Width of the group codes that hold such weights; None if a group is no multiple of 32."""
    return None if columns // groups % GROUP else (4 if bits <= 4 else 8)


def unpack_words(words: torch.Tensor, bits: int) -> torch.Tensor:
    """int32 [rows, n] -> uint8 [rows, n * 32 / bits], lowest bits first.

    3 bits run on over the ends of words: 32 weights are 3 words.
    """
    data = words.reshape(-1).view(torch.uint8).view(len(words), -1)
    if bits == 8:
        return data
    if bits == 3:
        low, middle, high = data.view(len(words), -1, 3).int().unbind(-1)
        runs = low | (middle << 8) | (high << 16)
        return ((runs[..., None] >> torch.arange(0, 24, 3)) & 7).to(torch.uint8).flatten(1)
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8)
    return ((data[..., None] >> shifts) & (2**bits - 1)).flatten(1)


def _out_of_order(index: torch.Tensor | None, columns: int, groups: int) -> torch.Tensor | None:
    """The index, unless it says what holds without it."""
    if index is None:
        return None
    wanted = index.long()
    low, high = int(wanted.min()), int(wanted.max())
    if low < 0 or high >= groups:
        wrong = low if low < 0 else high
        raise ValueError(f"group {wrong} in the index, there are {groups}")
    plain = torch.arange(columns) // (columns // groups)
    return None if torch.equal(wanted, plain) else wanted


def _fits(values: torch.Tensor) -> bool:
    """Whether float16 holds the values to its full precision."""
    return bool(((values.half().float() - values).abs() <= values.abs() * _HALF_EPS).all())
