"""Join attention over disjoint key sets in one pass; see `reference`."""


# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false

from __future__ import annotations

from collections.abc import Callable

import torch
import triton
from torch import Tensor
from triton import language as tl

from rtp_kernels.gpu import pdl
from rtp_kernels.gpu.launch import launch
from rtp_kernels.gpu.sizes import ceil_div, next_power_of_2

_ROWS = 16
_NOTHING = tl.constexpr(-1e30)
_LOG2E = tl.constexpr(1.4426950408889634)


def merge_attention(parts: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
    """parts [n, tokens, heads, dim], lse [n, tokens, heads] -> attention, lse float32."""
    count, tokens, heads, dim = parts.shape
    parts, lse = parts.contiguous(), lse.float().contiguous()
    out = parts.new_empty(tokens, heads, dim)
    total = torch.empty(tokens, heads, dtype=torch.float32, device=parts.device)
    rows = tokens * heads
    if not rows:
        return out, total
    launch(
        merge_rows,
        (ceil_div(rows, _ROWS),),
        parts,
        lse,
        out,
        total,
        rows,
        count,
        DIM=dim,
        WIDE=next_power_of_2(dim),
        ROWS=_ROWS,
        warps=4,
    )
    return out, total


@triton.jit(do_not_specialize=["rows", "count"])
def merge_rows(
    parts, lse, out, total, rows, count,
    DIM: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of ROWS tokens and heads). Parts of no weight are not even loaded."""
    pdl.release(PDL)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, WIDE)
    there = row < rows
    at = tl.cast(row, tl.int64)[:, None] * DIM + d[None, :]
    mask = there[:, None] & (d < DIM)[None, :]
    top = tl.full([ROWS], _NOTHING, tl.float32)
    weights = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, WIDE], tl.float32)
    pdl.wait(PDL)
    for part in range(0, count):
        base = tl.cast(part, tl.int64) * rows
        log = tl.load(lse + base + row, mask=there, other=-float("inf"))
        used = log > _NOTHING
        higher = tl.maximum(top, tl.where(used, log, _NOTHING))
        weight = tl.where(used, tl.exp2((log - higher) * _LOG2E), 0.0)
        fade = tl.exp2((top - higher) * _LOG2E)
        values = tl.load(parts + base * DIM + at, mask=mask & used[:, None], other=0.0)
        acc = acc * fade[:, None] + weight[:, None] * values.to(tl.float32)
        weights = weights * fade + weight
        top = higher
    seen = weights > 0.0
    value = tl.where(seen[:, None], acc / weights[:, None], 0.0)
    tl.store(out + at, value.to(out.dtype.element_ty), mask=mask)
    log = tl.where(seen, top + tl.log(tl.maximum(weights, 1e-37)), -float("inf"))
    tl.store(total + row, log, mask=there)


def bind(dtype: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """Same for every half-precision dtype."""
    del dtype
    return merge_attention
