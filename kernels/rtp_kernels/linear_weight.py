"""Weights of linear layers, in the forms that operations read.

A checkpoint that stores groups of codes (GGUF's Q4_0, Q4_1, Q8_0) keeps them beside the dense
form: a step with few rows is bound by the bytes of the weights and reads the codes, one with
many rows is bound by arithmetic and multiplies densely.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

GROUP = 32


@dataclass(frozen=True, slots=True)
class GroupCodes:
    """w = scale * q + minimum, in groups of 32 along the input.

    `q` uint8 [out, in]: 0 to 15 for 4 bits, 0 to 255 for 8. `scale` and `minimum` float16
    [out, in / 32]; GGUF stores them so, and nothing is lost.
    """

    bits: int
    q: torch.Tensor
    scale: torch.Tensor
    minimum: torch.Tensor

    def dense(self) -> torch.Tensor:
        """float32 [out, in]; the definition of the format."""
        groups = self.q.view(*self.scale.shape, GROUP).float()
        values = groups * self.scale.float()[..., None] + self.minimum.float()[..., None]
        return values.view(self.q.shape)

    def rows(self, begin: int, end: int) -> GroupCodes:
        """The codes of some output rows."""
        at = slice(begin, end)
        return GroupCodes(self.bits, self.q[at], self.scale[at], self.minimum[at])


@dataclass(frozen=True, slots=True)
class LinearWeight:
    """`dense` [out, in] in the run dtype and the codes it was made from."""

    dense: torch.Tensor
    codes: GroupCodes


def quantize(weight: torch.Tensor, bits: int) -> GroupCodes:
    """Round to nearest in groups of 32, between the group's extremes; [out, in], in % 32 == 0.

    Scale and minimum are rounded to float16 first and the codes chosen for the rounded ones.
    """
    groups = weight.float().view(weight.shape[0], -1, GROUP)
    low, high = groups.amin(-1), groups.amax(-1)
    steps = 2**bits - 1
    scale = ((high - low) / steps).half()
    minimum = low.half()
    spread = torch.where(scale == 0, torch.ones_like(scale), scale).float()
    q = ((groups - minimum.float()[..., None]) / spread[..., None]).round_().clamp_(0, steps)
    return GroupCodes(bits, q.to(torch.uint8).view(weight.shape), scale, minimum)
