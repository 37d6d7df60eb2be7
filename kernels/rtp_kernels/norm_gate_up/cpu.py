"""CPU form: fused norm operator, row-invariant linear layer, SwiGLU in place.

torch's silu takes a scalar path for what does not fill a vector register, with other last
bits, and where that falls depends on the number of rows and threads. Its exp does not, so the
float32 form is built from exp and exact arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from rtp_kernels.invariant import bind_linear


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """As the reference, with float32 rows independent of the batch."""
    linear = bind_linear(dtype)
    silu = _exact_silu if dtype == "float32" else functional.silu

    def norm_gate_up(
        x: torch.Tensor,
        norm: torch.Tensor,
        eps: float,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        both = linear(functional.rms_norm(x, norm.shape, norm, eps), weight, bias)
        gate, up = both.chunk(2, dim=-1)
        return silu(gate).mul_(up)

    return norm_gate_up


def _exact_silu(gate: torch.Tensor) -> torch.Tensor:
    return gate / gate.neg().exp_().add_(1.0)
