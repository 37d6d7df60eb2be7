"""CPU form: fused norm operator, row-invariant linear layer, SwiGLU in place."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from rtp_kernels.invariant import bind_linear


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """As the reference, with float32 rows independent of the batch."""
    linear = bind_linear(dtype)

    def norm_gate_up(
        x: torch.Tensor,
        norm: torch.Tensor,
        eps: float,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        both = linear(functional.rms_norm(x, norm.shape, norm, eps), weight, bias)
        gate, up = both.chunk(2, dim=-1)
        return functional.silu(gate).mul_(up)

    return norm_gate_up
