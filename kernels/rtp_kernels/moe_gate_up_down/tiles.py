"""Products of experts with the tokens that chose them, tile by tile of the sorted pairs.

A program takes one tile (pairs of one expert) and a block of its outputs. The gated product
reads tokens where they lie and writes its rows sorted; the one after it reads these and writes
each pair's row, times its share, to the pair's own place. Whoever adds a token's rows up does so
in the order of its choices, so the sum is the same in any company.
"""

# Which branches exist is decided when a kernel is compiled.
# ruff: noqa: ANN001, ANN201, ANN202, PLR0912, PLR0913, PLR0915, PLR0917 - device code
# pyright: reportPossiblyUnboundVariable=false, reportGeneralTypeIssues=false
# pyright: reportArgumentType=false, reportCallIssue=false
from __future__ import annotations

import torch
import triton
from triton import language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from rtp_kernels.gpu import pdl
from rtp_kernels.gpu.gated import activate
from rtp_kernels.gpu.launch import launch
from rtp_kernels.gpu.sizes import ceil_div
from rtp_kernels.moe_gate_up_down.forms import WIDE, Tile
from rtp_kernels.moe_gate_up_down.routing import Routing


@triton.jit
def _weights(at, columns, INPUTS: tl.constexpr, EVEN: tl.constexpr):
    """[outputs, columns]."""
    if EVEN:
        return tl.load(at[:, None] + columns[None, :])
    else:
        return tl.load(at[:, None] + columns[None, :], mask=(columns < INPUTS)[None, :], other=0.0)


@triton.jit
def _values(at, columns, INPUTS: tl.constexpr, EVEN: tl.constexpr, SWAPPED: tl.constexpr):
    """[tokens, columns], or transposed as they are loaded."""
    if SWAPPED:
        if EVEN:
            return tl.load(at[None, :] + columns[:, None])
        else:
            inside = (columns < INPUTS)[:, None]
            return tl.load(at[None, :] + columns[:, None], mask=inside, other=0.0)
    else:
        return _weights(at, columns, INPUTS, EVEN)


@triton.jit
def _product(w, values, total, SWAPPED: tl.constexpr):
    """SWAPPED: [outputs, tokens], with the weights on the wide side."""
    if SWAPPED:
        return tl.dot(w, values, total)
    else:
        return tl.dot(values, w.T, total)


@triton.jit(do_not_specialize=["tokens"])
def expert_product_kernel(
    x,
    weight,
    order,
    shares,
    table,
    out,
    tokens,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    TOP_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr,
    GATED: tl.constexpr,
    SWAPPED: tl.constexpr,
    TILES: tl.constexpr,
    PDL: tl.constexpr,
):
    """Grid (blocks of the outputs, most tiles).

    GATED: x [tokens, INPUTS], weight [experts * 2 * OUTPUTS, INPUTS] with an expert's gate
    first, out [pairs, OUTPUTS] in order. Else x [pairs, INPUTS] in order, weight [experts *
    OUTPUTS, INPUTS], out [TOP_K, tokens, OUTPUTS], times the shares. TILES: `weight` is a
    tensor descriptor.
    """
    ROWS: tl.constexpr = 2 * OUTPUTS if GATED else OUTPUTS
    EVEN: tl.constexpr = INPUTS % BLOCK_K == 0
    block = tl.program_id(0) * BLOCK_N
    tile = tl.program_id(1)
    pdl.release(PDL)
    pdl.wait(PDL)
    entry = table + 4 * (1 + tile)
    expert = tl.load(entry)
    first = tl.load(entry + 1)
    count = tl.load(entry + 2)
    if tile >= tl.load(table):
        return

    within = tl.arange(0, BLOCK_M)
    # Beyond its pairs a tile repeats the last one: no masks, and no other rows are touched.
    place = first + tl.minimum(within, count - 1)
    pair = tl.load(order + place)
    source = pair // TOP_K if GATED else place
    rows = x + source.to(tl.int64) * INPUTS
    outputs = block + tl.arange(0, BLOCK_N)
    safe = outputs if OUTPUTS % BLOCK_N == 0 else tl.minimum(outputs, OUTPUTS - 1)
    columns = tl.arange(0, BLOCK_K)
    if not TILES:
        gates = weight + expert.to(tl.int64) * ROWS * INPUTS + safe * INPUTS
        ups = gates + OUTPUTS * INPUTS

    if SWAPPED:
        total = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
        total_up = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    else:
        total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
        total_up = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for begin in tl.range(0, INPUTS, BLOCK_K, num_stages=STAGES):
        values = _values(rows, begin + columns, INPUTS, EVEN, SWAPPED)
        if TILES:
            w = weight.load([expert * ROWS + block, begin])
        else:
            w = _weights(gates, begin + columns, INPUTS, EVEN)
        total = _product(w, values, total, SWAPPED)
        if GATED:
            if TILES:
                u = weight.load([expert * ROWS + OUTPUTS + block, begin])
            else:
                u = _weights(ups, begin + columns, INPUTS, EVEN)
            total_up = _product(u, values, total_up, SWAPPED)

    if GATED:
        total = activate(total, "silu") * total_up
        target = first + within
    else:
        share = tl.load(shares + pair)
        total = total * (share[None, :] if SWAPPED else share[:, None])
        target = pair % TOP_K * tokens + pair // TOP_K
    to = out + target.to(tl.int64) * OUTPUTS
    mine, real = within < count, outputs < OUTPUTS
    done = total.to(out.dtype.element_ty)
    if SWAPPED:
        tl.store(to[None, :] + outputs[:, None], done, mask=mine[None, :] & real[:, None])
    else:
        tl.store(to[:, None] + outputs[None, :], done, mask=mine[:, None] & real[None, :])


def gate_up(x: torch.Tensor, weight: torch.Tensor, routing: Routing, tile: Tile) -> torch.Tensor:
    """x [tokens, hidden], weight [experts, 2 * width, hidden] -> [pairs, width], sorted."""
    pairs, width = routing.order.shape[0], weight.shape[1] // 2
    out = torch.empty((pairs, width), dtype=x.dtype, device=x.device)
    _launch(x, weight, routing, tile, out, gated=True, top_k=pairs // x.shape[0])
    return out


def down(
    x: torch.Tensor, weight: torch.Tensor, routing: Routing, tile: Tile, partials: torch.Tensor
) -> None:
    """x [pairs, width], sorted, weight [experts, hidden, width] -> partials [top_k, tokens,
    hidden], each pair's row times its share.
    """
    _launch(x, weight, routing, tile, partials, gated=False, top_k=partials.shape[0])


def _launch(
    x: torch.Tensor,
    weight: torch.Tensor,
    routing: Routing,
    tile: Tile,
    out: torch.Tensor,
    *,
    gated: bool,
    top_k: int,
) -> None:
    rows, inputs = weight.shape[1:]
    outputs = rows // 2 if gated else rows
    flat = weight.view(-1, inputs)
    block = [tile.block_n, tile.block_k]
    launch(
        expert_product_kernel,
        (ceil_div(outputs, tile.block_n), routing.tiles),
        x,
        TensorDescriptor(flat, list(flat.shape), [inputs, 1], block) if tile.tiles else flat,
        routing.order,
        routing.shares,
        routing.table,
        out,
        routing.order.shape[0] // top_k,
        OUTPUTS=outputs,
        INPUTS=inputs,
        TOP_K=top_k,
        BLOCK_M=routing.block_m,
        BLOCK_N=tile.block_n,
        BLOCK_K=tile.block_k,
        STAGES=tile.stages,
        GATED=gated,
        SWAPPED=routing.block_m < WIDE,
        TILES=tile.tiles,
        warps=tile.warps,
    )
