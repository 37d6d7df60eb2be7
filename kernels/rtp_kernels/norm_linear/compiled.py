"""Compiled form for few rows of weights that kept their codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rtp_kernels.compiled import operations, serves, usable_for
from rtp_kernels.norm_linear import cpu


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """The compiled form where it serves, else the `cpu` one."""
    plain = cpu.bind(dtype)
    if not usable_for(dtype):
        return plain
    compiled = operations().norm_linear

    def norm_linear(
        x: torch.Tensor,
        norm: torch.Tensor,
        eps: float,
        weight: Any,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if serves(weight, x, norm):
            return compiled(x, norm, eps, weight.packed, bias)
        return plain(x, norm, eps, weight, bias)

    return norm_linear
