"""Copy whole blocks inside a plane, in the order given.

plane [..., slots, head_dim] with slots = blocks * block_size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch


def block_copy(plane: torch.Tensor, pairs: Sequence[tuple[int, int]], block_size: int) -> None:
    """`pairs` of (source, destination) block ids."""
    for source, destination in pairs:
        taken = plane.narrow(-2, source * block_size, block_size)
        plane.narrow(-2, destination * block_size, block_size).copy_(taken)


def bind(dtype: str) -> Callable[..., None]:
    """Same for every dtype."""
    del dtype
    return block_copy
