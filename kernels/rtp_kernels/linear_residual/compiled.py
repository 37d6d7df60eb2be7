"""Compiled form for few rows of packed weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rtp_kernels.compiled import operations, serves, usable_for
from rtp_kernels.linear_residual import cpu


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """The compiled form where it serves, else the `cpu` one."""
    plain = cpu.bind(dtype)
    if not usable_for(dtype):
        return plain
    compiled = operations().linear_residual

    def linear_residual(
        x: torch.Tensor,
        weight: Any,
        residual: torch.Tensor,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if serves(weight, x):
            return compiled(x, weight.packed, residual, bias)
        return plain(x, weight, residual, bias)

    return linear_residual
