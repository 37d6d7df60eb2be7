"""Scatter blocks in one launch over all layers; see `reference`."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from rtp_kernels.block_gather.reference import Blocks
from rtp_kernels.gpu.blocks import move, on_device, pages_of


def block_scatter(staged: Tensor, plane: Tensor, blocks: Blocks, block_size: int) -> None:
    """`staged` must be contiguous."""
    pages = pages_of(plane, block_size)
    source = staged.view(len(blocks), *pages.shape[1:])
    move(source, pages, None, on_device(blocks, plane.device))


def bind(dtype: str) -> Callable[..., None]:
    """Same for every dtype."""
    del dtype
    return block_scatter
