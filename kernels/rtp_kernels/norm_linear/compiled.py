"""Compiled form: one call for few rows of packed weights, else the compiled norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rtp_kernels.compiled import operations, row_operations, serves, usable_for
from rtp_kernels.invariant import fast_linear
from rtp_kernels.norm_linear import cpu


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """The compiled form where the library works, else the `cpu` one."""
    if not usable_for(dtype):
        return cpu.bind(dtype)
    few, many = operations().norm_linear, cpu.normed(fast_linear, row_operations().rms_norm)

    def norm_linear(
        x: torch.Tensor,
        norm: torch.Tensor,
        eps: float,
        weight: Any,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if serves(weight, x):
            return few(x, norm, eps, weight.packed, bias)
        return many(x, norm, eps, weight, bias)

    return norm_linear
