"""Blocks of a plane, one after the other, in memory of their own: what leaves the device.

plane [..., slots, head_dim] with slots = blocks * block_size, n block ids (a sequence or an
integer tensor) -> [n, ..., block_size, head_dim] contiguous; `out`, if given, is filled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

Blocks = Sequence[int] | torch.Tensor


def block_gather(
    plane: torch.Tensor, blocks: Blocks, block_size: int, out: torch.Tensor | None = None
) -> torch.Tensor:
    """The definition."""
    index = torch.as_tensor(blocks, dtype=torch.int64, device=plane.device)
    pages = plane.unflatten(-2, (-1, block_size))
    taken = pages.index_select(-3, index).movedim(-3, 0)
    return taken.contiguous() if out is None else out.copy_(taken)


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """Same for every dtype."""
    del dtype
    return block_gather
