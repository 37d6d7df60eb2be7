"""CPU form: the row-invariant linear layer and the fused norm operator."""

from __future__ import annotations

from collections.abc import Callable

import torch

from rtp_kernels.invariant import bind_linear
from rtp_kernels.norm_linear.cpu import rms_norm


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """As the reference, with float32 rows independent of the batch."""
    linear = bind_linear(dtype)

    def linear_norm_residual(
        x: torch.Tensor,
        weight: torch.Tensor,
        norm: torch.Tensor,
        eps: float,
        residual: torch.Tensor,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return rms_norm(linear(x, weight, bias), norm, eps).add_(residual)

    return linear_norm_residual
