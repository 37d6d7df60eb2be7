"""A few rows times a matrix, with the weights on the wide side of the matrix instruction.

Hopper's instruction takes 64 rows on one side and any multiple of 8 on the other. With up to 128
tokens the 64 belong to the weights: acc [outputs, tokens] = W_tile @ x_tile^T. Weights come in
as tiles of a tensor descriptor (TMA), which fills what is out of range with zeros, or by
pointers. With SPLITS > 1 the input is cut into as many parts and `out` holds float32 partial
sums that the next kernel adds as it loads them; no kernel of its own reduces them.
"""

# Device code: which branches exist is decided when a kernel is compiled.
# pyright: reportPossiblyUnboundVariable=false, reportGeneralTypeIssues=false
from __future__ import annotations

import torch
import triton
from triton import language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from rtp_kernels.gpu import pdl
from rtp_kernels.gpu.forms import Swapped
from rtp_kernels.gpu.gated import activate
from rtp_kernels.gpu.launch import launch
from rtp_kernels.gpu.sizes import ceil_div, next_power_of_2


@triton.jit
def _prefetch(at):
    """One line of 128 bytes a pointer, into the L2 cache."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;",
        "=r,l",
        [at.to(tl.int64)],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


@triton.jit
def _weights(weight, rows, begin, columns, INPUTS: tl.constexpr, EVEN: tl.constexpr):
    at = weight + rows[:, None].to(tl.int64) * INPUTS + (begin + columns)[None, :]
    if EVEN:
        return tl.load(at)
    else:
        return tl.load(at, mask=(begin + columns < INPUTS)[None, :], other=0.0)


@triton.jit
def _tokens(x, tokens, begin, columns, count, INPUTS: tl.constexpr, EVEN: tl.constexpr):
    """Transposed as it is loaded: [columns, tokens]."""
    at = x + tokens[None, :] * INPUTS + (begin + columns)[:, None]
    inside = (tokens < count)[None, :]
    if not EVEN:
        inside = inside & (begin + columns < INPUTS)[:, None]
    return tl.load(at, mask=inside, other=0.0)


@triton.jit(do_not_specialize=["count"])
def swapped_gemm_kernel(
    x,
    weight,
    prefetched,
    bias,
    out,
    count,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SPLITS: tl.constexpr,
    STAGES: tl.constexpr,
    ACTIVATION: tl.constexpr,
    TILES: tl.constexpr,
    PREFETCH: tl.constexpr,
    PDL: tl.constexpr,
):
    """out [SPLITS, count, OUTPUTS] (partial) = act(x @ weight^T + bias); grid (blocks, SPLITS).

    `x` and `weight` are tensor descriptors with TILES, pointers without; `prefetched` is the
    weight's pointer, of which PREFETCH columns go to the L2 cache before the wait. `bias` may be
    None, and is added by the first part. With an activation (one part only) `weight` and `bias`
    have 2 * OUTPUTS rows, the gate's first. BLOCK_M >= count.
    """
    GATED: tl.constexpr = ACTIVATION != "none"
    BLOCKS: tl.constexpr = (INPUTS + BLOCK_K - 1) // BLOCK_K
    PART: tl.constexpr = (BLOCKS + SPLITS - 1) // SPLITS * BLOCK_K
    EVEN: tl.constexpr = INPUTS == PART * SPLITS
    first = tl.program_id(0) * BLOCK_N
    part = tl.program_id(1)
    start = part * PART
    rows = first + tl.arange(0, BLOCK_N)
    safe = rows if OUTPUTS % BLOCK_N == 0 else tl.minimum(rows, OUTPUTS - 1)
    tokens = tl.arange(0, BLOCK_M)
    columns = tl.arange(0, BLOCK_K)
    if PREFETCH > 0:
        lines = tl.minimum(start + tl.arange(0, PREFETCH // 64) * 64, INPUTS - 1)
        ahead = prefetched + safe[:, None].to(tl.int64) * INPUTS + lines[None, :]
        _prefetch(ahead)
        if GATED:
            _prefetch(ahead + OUTPUTS * INPUTS)
    pdl.release(PDL)
    pdl.wait(PDL)

    total = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    total_up = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    for step in tl.range(0, PART, BLOCK_K, num_stages=STAGES):
        begin = start + step
        if TILES:
            w = weight.load([first, begin])
            values = x.load([0, begin]).T
            if GATED:
                u = weight.load([OUTPUTS + first, begin])
        else:
            w = _weights(weight, safe, begin, columns, INPUTS, EVEN)
            values = _tokens(x, tokens, begin, columns, count, INPUTS, EVEN)
            if GATED:
                u = _weights(weight, OUTPUTS + safe, begin, columns, INPUTS, EVEN)
        total = tl.dot(w, values, total)
        if GATED:
            total_up = tl.dot(u, values, total_up)

    if bias is not None:
        once = tl.where(part == 0, 1.0, 0.0)
        total += (once * tl.load(bias + safe).to(tl.float32))[:, None]
        if GATED:
            total_up += tl.load(bias + OUTPUTS + safe).to(tl.float32)[:, None]
    if GATED:
        total = activate(total, ACTIVATION) * total_up
    at = out + part * count * OUTPUTS + tokens[None, :] * OUTPUTS + rows[:, None]
    inside = (tokens < count)[None, :]
    if OUTPUTS % BLOCK_N != 0:
        inside = inside & (rows < OUTPUTS)[:, None]
    tl.store(at, total.to(out.dtype.element_ty), mask=inside)


def swapped_gemm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    form: Swapped,
    *,
    activation: str = "none",
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """x [count, inputs] -> [splits, count, outputs]; float32 if there are several parts.

    `weight` is contiguous. Tiles need rows of a multiple of 16 bytes that start at one.
    """
    (count, inputs), rows = x.shape, weight.shape[0]
    outputs = rows if activation == "none" else rows // 2
    dtype = torch.float32 if form.splits > 1 else out_dtype or x.dtype
    out = torch.empty((form.splits, count, outputs), dtype=dtype, device=x.device)
    block_m = max(16, next_power_of_2(count))
    x = x.contiguous()
    left, right = x, weight
    if form.tiles:
        # Made at each call, about 5 us each: a cached one would keep the weights alive.
        left = TensorDescriptor(x, [count, inputs], [inputs, 1], [block_m, form.block_k])
        right = TensorDescriptor(weight, [rows, inputs], [inputs, 1], [form.block_n, form.block_k])
    launch(
        swapped_gemm_kernel,
        (ceil_div(outputs, form.block_n), form.splits),
        left,
        right,
        weight,
        bias,
        out,
        count,
        OUTPUTS=outputs,
        INPUTS=inputs,
        BLOCK_M=block_m,
        BLOCK_N=form.block_n,
        BLOCK_K=form.block_k,
        SPLITS=form.splits,
        STAGES=form.stages,
        ACTIVATION=activation,
        TILES=form.tiles,
        PREFETCH=form.prefetch,
        warps=form.warps,
    )
    return out
