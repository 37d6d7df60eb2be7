"""The gate of a gated feed-forward layer (Shazeer 2020): act(gate) * up.

`act` is silu, or gelu in its tanh approximation (Hendrycks & Gimpel 2016):
g / 2 * (1 + tanh(u)) = g * sigmoid(2u), u = sqrt(2 / pi) * (g + 0.044715 g^3).
"""

from __future__ import annotations

import torch
import triton
from triton import language as tl

from rtp_kernels.gpu import pdl
from rtp_kernels.gpu.launch import launch
from rtp_kernels.gpu.sizes import ceil_div, next_power_of_2

BLOCK = 2048


@triton.jit
def activate(gate, ACTIVATION: tl.constexpr):
    """float32 in and out; ACTIVATION is "silu" or "gelu_tanh"."""
    if ACTIVATION == "silu":
        return gate * tl.sigmoid(gate)
    else:
        return gate * tl.sigmoid(1.5957691216057308 * (gate + 0.044715 * gate * gate * gate))


@triton.jit
def gated_product_kernel(
    both,
    out,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PDL: tl.constexpr,
):
    """Grid (rows, blocks of the width): both [rows, 2 * WIDTH] -> out [rows, WIDTH]."""
    pdl.release(PDL)
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < WIDTH
    pdl.wait(PDL)
    gate = tl.load(both + row * 2 * WIDTH + columns, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(both + row * 2 * WIDTH + WIDTH + columns, mask=inside, other=0.0).to(tl.float32)
    product = activate(gate, ACTIVATION) * up
    tl.store(out + row * WIDTH + columns, product.to(out.dtype.element_ty), mask=inside)


def gated_product(both: torch.Tensor, activation: str) -> torch.Tensor:
    """both [rows, 2 * width], gate first, contiguous -> [rows, width] of its dtype."""
    rows, width = both.shape[0], both.shape[1] // 2
    out = torch.empty((rows, width), dtype=both.dtype, device=both.device)
    block = min(BLOCK, next_power_of_2(width))
    grid = (rows, ceil_div(width, block))
    constants = {"WIDTH": width, "BLOCK": block, "ACTIVATION": activation}
    launch(gated_product_kernel, grid, both, out, warps=4, **constants)
    return out
