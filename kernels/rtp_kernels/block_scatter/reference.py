"""Write blocks that lie one after the other to their places in a plane: inverse of block_gather.

staged [n, ..., block_size, head_dim], plane [..., slots, head_dim], n different block ids.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from rtp_kernels.block_gather.reference import Blocks


def block_scatter(
    staged: torch.Tensor, plane: torch.Tensor, blocks: Blocks, block_size: int
) -> None:
    """The definition."""
    index = torch.as_tensor(blocks, dtype=torch.int64, device=plane.device)
    pages = plane.unflatten(-2, (-1, block_size))
    pages.index_copy_(-3, index, staged.movedim(0, -3))


def bind(dtype: str) -> Callable[..., None]:
    """Same for every dtype."""
    del dtype
    return block_scatter
