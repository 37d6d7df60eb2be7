"""One row times a matrix: bound by the bytes of the weights, so all else hides behind them.

A program takes a few output rows and the whole input, in float32, and reduces once at the end.
Its first weights are in registers before it waits for the kernel that makes its input. The norm
is fused without a pass of its own: y = rsqrt(mean(x^2) + eps) * sum(w * x * gain), and the sum of
squares grows in the same loop as the products.
"""

# Device code: which branches exist is decided when a kernel is compiled.
# pyright: reportPossiblyUnboundVariable=false, reportGeneralTypeIssues=false
from __future__ import annotations

import torch
import triton
from triton import language as tl

from rtp_kernels.gpu import pdl
from rtp_kernels.gpu.forms import Gemv
from rtp_kernels.gpu.gated import activate
from rtp_kernels.gpu.launch import launch
from rtp_kernels.gpu.sizes import ceil_div


@triton.jit
def _weights(at, columns, COLUMNS: tl.constexpr, EVEN: tl.constexpr):
    """One tile of weights; they are read once, so they need not stay in the cache."""
    if EVEN:
        return tl.load(at, eviction_policy="evict_first")
    else:
        inside = (columns < COLUMNS)[None, :]
        return tl.load(at, mask=inside, other=0.0, eviction_policy="evict_first")


@triton.jit
def _vector(at, columns, COLUMNS: tl.constexpr, EVEN: tl.constexpr):
    if EVEN:
        return tl.load(at + columns).to(tl.float32)
    else:
        return tl.load(at + columns, mask=columns < COLUMNS, other=0.0).to(tl.float32)


@triton.jit
def gemv_kernel(
    x,
    norm,
    weight,
    bias,
    residual,
    out,
    eps,
    OUTPUTS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    UNROLL: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PDL: tl.constexpr,
):
    """out [OUTPUTS] = act(weight @ norm(x) + bias) + residual; grid (blocks of the outputs,).

    `norm`, `bias` and `residual` may be None. With an activation, `weight` and `bias` have
    2 * OUTPUTS rows, the gate's first. UNROLL tiles of BLOCK_K columns are loaded up front.
    """
    GATED: tl.constexpr = ACTIVATION != "none"
    EVEN: tl.constexpr = (COLUMNS % BLOCK_K == 0) and (UNROLL * BLOCK_K <= COLUMNS)
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = rows < OUTPUTS
    safe = rows if OUTPUTS % BLOCK_N == 0 else tl.minimum(rows, OUTPUTS - 1)
    columns = tl.arange(0, BLOCK_K)
    tiles = weight + safe[:, None].to(tl.int64) * COLUMNS + columns[None, :]
    ups = tiles + OUTPUTS * COLUMNS
    pdl.release(PDL)

    w0 = _weights(tiles, columns, COLUMNS, EVEN)
    if GATED:
        u0 = _weights(ups, columns, COLUMNS, EVEN)
    if UNROLL > 1:
        w1 = _weights(tiles + BLOCK_K, columns + BLOCK_K, COLUMNS, EVEN)
        if GATED:
            u1 = _weights(ups + BLOCK_K, columns + BLOCK_K, COLUMNS, EVEN)
    if UNROLL > 2:
        w2 = _weights(tiles + 2 * BLOCK_K, columns + 2 * BLOCK_K, COLUMNS, EVEN)
        w3 = _weights(tiles + 3 * BLOCK_K, columns + 3 * BLOCK_K, COLUMNS, EVEN)
        if GATED:
            u2 = _weights(ups + 2 * BLOCK_K, columns + 2 * BLOCK_K, COLUMNS, EVEN)
            u3 = _weights(ups + 3 * BLOCK_K, columns + 3 * BLOCK_K, COLUMNS, EVEN)
    pdl.wait(PDL)

    total = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    total_up = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    squares = tl.zeros([BLOCK_K], tl.float32)
    for part in tl.static_range(UNROLL):
        here = part * BLOCK_K + columns
        values = _vector(x, here, COLUMNS, EVEN)
        if norm is not None:
            squares += values * values
            values = values * _vector(norm, here, COLUMNS, EVEN)
        if part == 0:
            total += w0.to(tl.float32) * values[None, :]
            if GATED:
                total_up += u0.to(tl.float32) * values[None, :]
        elif part == 1:
            total += w1.to(tl.float32) * values[None, :]
            if GATED:
                total_up += u1.to(tl.float32) * values[None, :]
        elif part == 2:
            total += w2.to(tl.float32) * values[None, :]
            if GATED:
                total_up += u2.to(tl.float32) * values[None, :]
        else:
            total += w3.to(tl.float32) * values[None, :]
            if GATED:
                total_up += u3.to(tl.float32) * values[None, :]
    for begin in range(UNROLL * BLOCK_K, COLUMNS, BLOCK_K):
        here = begin + columns
        w = _weights(tiles + begin, here, COLUMNS, EVEN)
        values = _vector(x, here, COLUMNS, EVEN)
        if norm is not None:
            squares += values * values
            values = values * _vector(norm, here, COLUMNS, EVEN)
        total += w.to(tl.float32) * values[None, :]
        if GATED:
            u = _weights(ups + begin, here, COLUMNS, EVEN)
            total_up += u.to(tl.float32) * values[None, :]

    y = tl.sum(total, 1)
    up = tl.sum(total_up, 1)
    if norm is not None:
        scale = tl.rsqrt(tl.sum(squares, 0) / COLUMNS + eps)
        y = y * scale
        up = up * scale
    if bias is not None:
        y += tl.load(bias + safe).to(tl.float32)
        if GATED:
            up += tl.load(bias + OUTPUTS + safe).to(tl.float32)
    if GATED:
        y = activate(y, ACTIVATION) * up
    if residual is not None:
        y += tl.load(residual + safe).to(tl.float32)
    tl.store(out + rows, y.to(out.dtype.element_ty), mask=inside)


def gemv(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    form: Gemv,
    *,
    norm: torch.Tensor | None = None,
    eps: float = 0.0,
    residual: torch.Tensor | None = None,
    activation: str = "none",
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """x [1, columns] -> [1, outputs]; weight contiguous, two rows an output with activation."""
    rows, columns = weight.shape
    outputs = rows if activation == "none" else rows // 2
    out = torch.empty((1, outputs), dtype=out_dtype or x.dtype, device=x.device)
    launch(
        gemv_kernel,
        (ceil_div(outputs, form.block_n),),
        x.contiguous(),
        norm,
        weight,
        bias,
        residual,
        out,
        eps,
        OUTPUTS=outputs,
        COLUMNS=columns,
        BLOCK_N=form.block_n,
        BLOCK_K=form.block_k,
        UNROLL=form.unroll,
        ACTIVATION=activation,
        warps=form.warps,
    )
    return out
