"""CPU form: fused norm operator, row-invariant linear layer, SwiGLU in place.

torch's silu takes a scalar path for what does not fill a vector register, with other last
bits, and where that falls depends on the number of rows and threads. Its exp does not, so the
float32 form is built from exp and exact arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from rtp_kernels.invariant import Linear, bind_linear
from rtp_kernels.norm_linear.cpu import Normalize, rms_norm


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """As the reference, with float32 rows independent of the batch."""
    return bind_gated(dtype, exact_silu if dtype == "float32" else functional.silu)


def bind_gated(
    dtype: str, activation: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[..., torch.Tensor]:
    """The operation with any activation of the gate, which must not return its argument."""

    def gate_in_place(both: torch.Tensor) -> torch.Tensor:
        gate, up = both.chunk(2, dim=-1)
        return activation(gate).mul_(up)

    return gated(bind_linear(dtype), rms_norm, gate_in_place)


def gated(
    linear: Linear, normalize: Normalize, gate: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[..., torch.Tensor]:
    """The operation made of its three parts; `gate` takes [tokens, 2 * width]."""

    def norm_gate_up(
        x: torch.Tensor,
        norm: torch.Tensor,
        eps: float,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return gate(linear(normalize(x, norm, eps), weight, bias))

    return norm_gate_up


def exact_silu(gate: torch.Tensor) -> torch.Tensor:
    """float32 silu whose bits depend on the element only."""
    return gate / gate.neg().exp_().add_(1.0)
