"""CPU form: one fused norm operator and the row-invariant linear layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from rtp_kernels.invariant import bind_linear


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """As the reference, with float32 rows independent of the batch."""
    linear = bind_linear(dtype)

    def norm_linear(
        x: torch.Tensor,
        norm: torch.Tensor,
        eps: float,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return linear(functional.rms_norm(x, norm.shape, norm, eps), weight, bias)

    return norm_linear
