"""RMS norm, fused gate and up projections, GeGLU (Shazeer 2020) in its tanh approximation.

As `norm_gate_up`, with gelu(g) = g / 2 * (1 + tanh(sqrt(2 / pi) * (g + 0.044715 * g^3))) in
place of silu.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from rtp_kernels.norm_linear.reference import norm_linear


def norm_gate_up_gelu(
    x: torch.Tensor,
    norm: torch.Tensor,
    eps: float,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """The definition."""
    gate, up = norm_linear(x, norm, eps, weight, bias).chunk(2, dim=-1)
    return functional.gelu(gate, approximate="tanh") * up


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """Same for every dtype."""
    del dtype
    return norm_gate_up_gelu
