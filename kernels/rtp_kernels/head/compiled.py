"""Compiled form: logits of few rows are never rounded to bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rtp_kernels.compiled import operations, serves, usable_for
from rtp_kernels.head import cpu
from rtp_kernels.head.reference import widened
from rtp_kernels.norm_linear import compiled as norm_linear


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """The compiled form where it serves, else the `cpu` one."""
    if not usable_for(dtype):
        return cpu.bind(dtype)
    plain = widened(norm_linear.bind(dtype))
    compiled = operations().head

    def head(x: torch.Tensor, norm: torch.Tensor, eps: float, weight: Any) -> torch.Tensor:
        if serves(weight, x):
            return compiled(x, norm, eps, weight.packed)
        return plain(x, norm, eps, weight)

    return head
