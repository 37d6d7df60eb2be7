"""GPU form. A step's first kernel: launched plainly, it waits for all of the step before.

So the kernels after it, which start early, may read before they wait what the step before
wrote (see `rtp_kernels.gpu.pdl`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
from triton import language as tl

from rtp_kernels.gpu.launch import enqueue
from rtp_kernels.gpu.sizes import next_power_of_2


@triton.jit
def embed_kernel(token_ids, table, out, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """Grid (tokens,): a row of `table` each."""
    token = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < COLUMNS
    row = tl.load(token_ids + token).to(tl.int64)
    values = tl.load(table + row * COLUMNS + columns, mask=inside)
    tl.store(out + token * COLUMNS + columns, values, mask=inside)


def embed(token_ids: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """ids int64 or int32 [tokens], all within the table; table [vocab, hidden] contiguous."""
    tokens, columns = token_ids.shape[0], table.shape[1]
    out = torch.empty((tokens, columns), dtype=table.dtype, device=table.device)
    block = next_power_of_2(columns)
    kernel: Any = embed_kernel
    enqueue(
        kernel,
        (tokens,),
        token_ids.contiguous(),
        table,
        out,
        COLUMNS=columns,
        BLOCK=block,
        num_warps=4,
    )
    return out


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """Same for every dtype."""
    del dtype
    return embed
