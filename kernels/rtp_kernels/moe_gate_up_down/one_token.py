"""The experts of one token: bound by the bytes of their weights, read by rows.

No order and no tiles: the gated product runs for each choice beside the others, and the last
product takes a block of outputs of all choices at once, so that the weighted sum and the
residual cost nothing. The norm is fused as in `gpu.gemv`.
"""

# Which branches exist is decided when a kernel is compiled.
# ruff: noqa: ANN001, ANN201, PLR0913, PLR0917 - device code
# pyright: reportPossiblyUnboundVariable=false, reportGeneralTypeIssues=false
# pyright: reportArgumentType=false, reportCallIssue=false
from __future__ import annotations

import torch
import triton
from triton import language as tl

from rtp_kernels.gpu import pdl
from rtp_kernels.gpu.gated import activate
from rtp_kernels.gpu.launch import launch
from rtp_kernels.gpu.sizes import ceil_div, next_power_of_2
from rtp_kernels.moe_gate_up_down.routing import Choices

_GATED_ELEMENTS, _ELEMENTS = 4096, 8192
"""Of a tile of weights; the gated product has two under way."""
_WARPS = 4


@triton.jit
def gate_up_kernel(
    x,
    norm,
    weight,
    experts,
    out,
    eps,
    OUTPUTS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PDL: tl.constexpr,
):
    """out [choices, OUTPUTS] = silu(gate) * up of norm(x); grid (blocks of the outputs,
    choices). weight [experts, 2 * OUTPUTS, COLUMNS], an expert's gate first.
    """
    choice = tl.program_id(1)
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    safe = tl.minimum(rows, OUTPUTS - 1)
    columns = tl.arange(0, BLOCK_K)
    pdl.release(PDL)
    pdl.wait(PDL)
    expert = tl.load(experts + choice).to(tl.int64)
    gates = weight + expert * 2 * OUTPUTS * COLUMNS + safe[:, None] * COLUMNS + columns[None, :]
    ups = gates + OUTPUTS * COLUMNS
    total = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    total_up = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    squares = tl.zeros([BLOCK_K], tl.float32)
    for begin in tl.static_range(0, COLUMNS, BLOCK_K):
        inside = begin + columns < COLUMNS
        many = inside[None, :]
        w = tl.load(gates + begin, mask=many, other=0.0, eviction_policy="evict_first")
        u = tl.load(ups + begin, mask=many, other=0.0, eviction_policy="evict_first")
        # All of them are under way before the first is used; the compiler would take turns.
        tl.debug_barrier()
        values = tl.load(x + begin + columns, mask=inside, other=0.0).to(tl.float32)
        squares += values * values
        values *= tl.load(norm + begin + columns, mask=inside, other=0.0).to(tl.float32)
        total += w.to(tl.float32) * values[None, :]
        total_up += u.to(tl.float32) * values[None, :]
    scale = tl.rsqrt(tl.sum(squares, 0) / COLUMNS + eps)
    gated = activate(tl.sum(total, 1) * scale, "silu") * (tl.sum(total_up, 1) * scale)
    tl.store(out + choice * OUTPUTS + rows, gated.to(out.dtype.element_ty), mask=rows < OUTPUTS)


@triton.jit
def down_kernel(
    hidden,
    weight,
    experts,
    shares,
    residual,
    out,
    OUTPUTS: tl.constexpr,
    COLUMNS: tl.constexpr,
    TOP_K: tl.constexpr,
    CHOICES: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PDL: tl.constexpr,
):
    """out [OUTPUTS] = residual + the sum of share * (weight[expert] @ hidden) over choices;
    grid (blocks of the outputs,). hidden [TOP_K, COLUMNS]; CHOICES is a power of two.
    """
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    safe = tl.minimum(rows, OUTPUTS - 1)
    columns = tl.arange(0, BLOCK_K)
    choices = tl.arange(0, CHOICES)
    real = choices < TOP_K
    pdl.release(PDL)
    pdl.wait(PDL)
    expert = tl.load(experts + choices, mask=real, other=0).to(tl.int64)
    share = tl.load(shares + choices, mask=real, other=0.0)
    at = expert[:, None, None] * OUTPUTS * COLUMNS + safe[None, :, None] * COLUMNS
    tiles = weight + at + columns[None, None, :]
    total = tl.zeros([CHOICES, BLOCK_N, BLOCK_K], tl.float32)
    for begin in tl.static_range(0, COLUMNS, BLOCK_K):
        inside = real[:, None] & (begin + columns < COLUMNS)[None, :]
        many = inside[:, None, :]
        w = tl.load(tiles + begin, mask=many, other=0.0, eviction_policy="evict_first")
        at_values = hidden + choices[:, None] * COLUMNS + (begin + columns)[None, :]
        values = tl.load(at_values, mask=inside, other=0.0).to(tl.float32)
        total += w.to(tl.float32) * values[:, None, :]
    y = tl.sum(tl.sum(total, 2) * share[:, None], 0)
    y += tl.load(residual + safe).to(tl.float32)
    tl.store(out + rows, y.to(out.dtype.element_ty), mask=rows < OUTPUTS)


def gate_up(
    x: torch.Tensor, norm: torch.Tensor, eps: float, weight: torch.Tensor, choices: Choices
) -> torch.Tensor:
    """x [1, hidden], weight [experts, 2 * width, hidden] -> [top_k, width]."""
    _, rows, columns = weight.shape
    outputs, top_k = rows // 2, choices.experts.shape[1]
    block_k = min(2048, next_power_of_2(columns))
    block_n = max(1, min(_GATED_ELEMENTS // block_k, next_power_of_2(outputs)))
    out = torch.empty((top_k, outputs), dtype=x.dtype, device=x.device)
    grid = (ceil_div(outputs, block_n), top_k)
    given = (x, norm, weight, choices.experts, out, eps)
    constants = {"OUTPUTS": outputs, "COLUMNS": columns, "BLOCK_N": block_n, "BLOCK_K": block_k}
    launch(gate_up_kernel, grid, *given, warps=_WARPS, **constants)
    return out


def down(
    hidden: torch.Tensor, weight: torch.Tensor, choices: Choices, residual: torch.Tensor
) -> torch.Tensor:
    """hidden [top_k, width], weight [experts, hidden, width] -> residual + sum, [1, hidden]."""
    _, outputs, columns = weight.shape
    top_k = hidden.shape[0]
    wide = next_power_of_2(top_k)
    block_k = min(256, next_power_of_2(columns))
    block_n = max(1, min(_ELEMENTS // (wide * block_k), next_power_of_2(outputs)))
    out = torch.empty_like(residual)
    launch(
        down_kernel,
        (ceil_div(outputs, block_n),),
        hidden,
        weight,
        choices.experts,
        choices.shares,
        residual,
        out,
        OUTPUTS=outputs,
        COLUMNS=columns,
        TOP_K=top_k,
        CHOICES=wide,
        BLOCK_N=block_n,
        BLOCK_K=block_k,
        warps=_WARPS,
    )
    return out
