"""CPU form: one fused norm operator and the row-invariant linear layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from rtp_kernels.invariant import Linear, bind_linear

Normalize = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]


def rms_norm(x: torch.Tensor, norm: torch.Tensor, eps: float) -> torch.Tensor:
    """One fused operator, which wants both in one dtype."""
    return functional.rms_norm(x.to(norm.dtype), norm.shape, norm, eps).to(x.dtype)


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """As the reference, with float32 rows independent of the batch."""
    return normed(bind_linear(dtype), rms_norm)


def normed(linear: Linear, normalize: Normalize) -> Callable[..., torch.Tensor]:
    """The operation made of its two parts."""

    def norm_linear(
        x: torch.Tensor,
        norm: torch.Tensor,
        eps: float,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return linear(normalize(x, norm, eps), weight, bias)

    return norm_linear
