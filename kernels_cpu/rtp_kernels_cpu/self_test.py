"""Does the compiled library work here? Asked once, answered by small products."""

from __future__ import annotations

from functools import cache

import torch

from rtp_kernels.linear_weight import quantize
from rtp_kernels_cpu import linear, linear_reference
from rtp_kernels_cpu.library import library
from rtp_kernels_cpu.weights import pack

_TOLERANCE = 2e-2
"""Of a float32 result's norm: well above rounding, far below any wrong layout."""


@cache
def failure() -> str | None:
    """None, or why the library must not be used."""
    try:
        library()
    except OSError as error:
        return str(error)
    for bits in (4, 8):
        if (error := _error(bits)) > _TOLERANCE:
            return f"a {bits}-bit product is wrong by {error:.1%}: reinstall rtp-kernels-cpu"
    return None


def _error(bits: int) -> float:
    generator = torch.Generator().manual_seed(bits)
    weight = pack(quantize(torch.randn(48, 64, generator=generator), bits))
    x = torch.randn(3, 64, generator=generator).bfloat16()
    norm = torch.randn(64, generator=generator).bfloat16()
    wanted = linear_reference.head(x, norm, 1e-5, weight)
    difference = linear.head(x, norm, 1e-5, weight) - wanted
    return float(difference.norm() / wanted.norm())
