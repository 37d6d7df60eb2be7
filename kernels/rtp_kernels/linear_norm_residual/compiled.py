"""Compiled form: norm and residual in one pass; products as in `cpu`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rtp_kernels.compiled import operations, row_operations, serves, usable_for
from rtp_kernels.invariant import fast_linear
from rtp_kernels.linear_norm_residual import cpu


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """The compiled form where the library works, else the `cpu` one."""
    if not usable_for(dtype):
        return cpu.bind(dtype)
    linear, rms_norm = operations().linear, row_operations().rms_norm

    def linear_norm_residual(
        x: torch.Tensor,
        weight: Any,
        norm: torch.Tensor,
        eps: float,
        residual: torch.Tensor,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        few = serves(weight, x)
        done = linear(x, weight.packed, bias) if few else fast_linear(x, weight, bias)
        return rms_norm(done, norm, eps, residual)

    return linear_norm_residual
