"""CPU form: in float32 the row-invariant linear layer, added in place to its own output; in
bfloat16 many rows are added inside the product, before it is rounded.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from rtp_kernels.invariant import Weight, bind_linear, dense_form

MIN_ROWS = 32
"""Rows from which adding inside the product was measured to be faster."""


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

    def fast_linear_residual(
        x: torch.Tensor,
        weight: Weight,
        residual: torch.Tensor,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        dense = dense_form(weight, x.shape[0])
        if bias is not None or dense is None or x.shape[0] < MIN_ROWS:
            return linear(x, weight, bias).add_(residual)
        return torch.addmm(residual, x, dense.T)

    return linear_residual if dtype == "float32" else fast_linear_residual
