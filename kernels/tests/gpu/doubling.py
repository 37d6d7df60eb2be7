"""A small kernel for the tests of the compilation itself."""

from __future__ import annotations

import triton
from triton import language as tl

from rtp_kernels.gpu import pdl


@triton.jit
def double(x, out, elements, BLOCK: tl.constexpr, PDL: tl.constexpr):
    """`out` is twice `x`."""
    pdl.release(PDL)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    pdl.wait(PDL)
    mask = at < elements
    tl.store(out + at, 2 * tl.load(x + at, mask=mask), mask=mask)
