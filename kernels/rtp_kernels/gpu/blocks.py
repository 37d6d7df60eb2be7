"""Move whole blocks of KV memory: one launch for all layers, heads and blocks.

A program moves one block of one head of one layer. Used between blocks of a plane (copy on
write), and between a plane and contiguous memory (other tiers, other machines).
"""


# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor
from triton import language as tl

from rtp_kernels.gpu.launch import enqueue
from rtp_kernels.gpu.sizes import next_power_of_2


def on_device(ids: Sequence[Any] | Tensor, device: torch.device) -> Tensor:
    """int32 [n] or [n, 2] on the device; a tensor that is there already costs nothing."""
    return torch.as_tensor(ids, dtype=torch.int32, device=device)


def pages_of(plane: Tensor, block_size: int) -> Tensor:
    """[..., slots, head_dim] -> view [blocks, layers, heads, block_size, head_dim].

    Raises ValueError for more than two leading dimensions or dimensions that are not adjacent.
    """
    leading = plane.dim() - 2
    if leading not in (0, 1, 2) or plane.stride(-1) != 1:
        raise ValueError(
            f"a plane of shape {tuple(plane.shape)} and strides {plane.stride()}: expected "
            "[layers, heads, slots, head_dim] or fewer, the last dimension adjacent"
        )
    pages = plane.unflatten(-2, (-1, block_size)).movedim(-3, 0)
    for _ in range(2 - leading):
        pages = pages.unsqueeze(1)
    return pages


def move(source: Tensor, target: Tensor, from_ids: Tensor | None, to_ids: Tensor | None) -> None:
    """Blocks [n, layers, heads, block_size, head_dim] by id; None counts 0, 1, 2, …

    All blocks are moved at once: none may be both a source and a target.
    """
    ids = from_ids if from_ids is not None else to_ids
    count = source.shape[0] if ids is None else ids.shape[0]
    _, layers, heads, tokens, dim = source.shape
    if not count or not layers * heads:
        return
    enqueue(
        move_blocks,
        (count, layers * heads),
        source,
        target,
        source if from_ids is None else from_ids,
        source if to_ids is None else to_ids,
        heads,
        *source.stride()[:4],
        *target.stride()[:4],
        TOKENS=tokens,
        DIM=dim,
        WIDE=next_power_of_2(dim),
        FROM=from_ids is not None,
        TO=to_ids is not None,
        num_warps=4,
    )


@triton.jit(do_not_specialize=["heads"])
def move_blocks(
    source, target, from_ids, to_ids, heads,
    from_block, from_layer, from_head, from_token, to_block, to_layer, to_head, to_token,
    TOKENS: tl.constexpr, DIM: tl.constexpr, WIDE: tl.constexpr,
    FROM: tl.constexpr, TO: tl.constexpr,
):  # fmt: skip
    """Grid (blocks, layers * heads)."""
    number = tl.program_id(0)
    layer = tl.cast(tl.program_id(1) // heads, tl.int64)
    head = tl.cast(tl.program_id(1) % heads, tl.int64)
    taken = tl.load(from_ids + number) if FROM else number
    given = tl.load(to_ids + number) if TO else number
    token = tl.arange(0, TOKENS)
    d = tl.arange(0, WIDE)
    mask = (token >= 0)[:, None] & (d < DIM)[None, :]
    base = source + tl.cast(taken, tl.int64) * from_block + layer * from_layer + head * from_head
    block = tl.load(base + token[:, None] * from_token + d[None, :], mask=mask)
    base = target + tl.cast(given, tl.int64) * to_block + layer * to_layer + head * to_head
    tl.store(base + token[:, None] * to_token + d[None, :], block, mask=mask)
