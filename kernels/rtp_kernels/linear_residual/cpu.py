"""CPU form: the row-invariant linear layer, added in place to its own output."""

from __future__ import annotations

from collections.abc import Callable

import torch

from rtp_kernels.invariant import bind_linear


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """As the reference, with float32 rows independent of the batch."""
    linear = bind_linear(dtype)

    def linear_residual(
        x: torch.Tensor,
        weight: torch.Tensor,
        residual: torch.Tensor,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return linear(x, weight, bias).add_(residual)

    return linear_residual
