"""RMS norm, fused gate and up projections, SwiGLU (Shazeer 2020).

x [tokens, hidden], norm [hidden], weight [2 * width, hidden] with gate rows first, bias
[2 * width] or None -> silu(gate) * up, [tokens, width].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from rtp_kernels.norm_linear.reference import norm_linear


def norm_gate_up(
    x: torch.Tensor,
    norm: torch.Tensor,
    eps: float,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """The definition."""
    gate, up = norm_linear(x, norm, eps, weight, bias).chunk(2, dim=-1)
    return functional.silu(gate) * up


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """Same for every dtype."""
    del dtype
    return norm_gate_up
