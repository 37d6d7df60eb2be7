"""Gather blocks in one launch over all layers; see `reference`."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from rtp_kernels.block_gather.reference import Blocks
from rtp_kernels.gpu.blocks import move, on_device, pages_of


def block_gather(
    plane: Tensor, blocks: Blocks, block_size: int, out: Tensor | None = None
) -> Tensor:
    """[n, ..., block_size, head_dim]; `out` must be contiguous."""
    pages = pages_of(plane, block_size)
    if out is None:
        shape = (len(blocks), *plane.shape[:-2], block_size, plane.shape[-1])
        out = plane.new_empty(shape)
    move(pages, out.view(len(blocks), *pages.shape[1:]), on_device(blocks, plane.device), None)
    return out


def bind(dtype: str) -> Callable[..., Tensor]:
    """Same for every dtype."""
    del dtype
    return block_gather
