"""Compiled form: one call for few rows of packed weights, else compiled norm and gate."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from rtp_kernels.compiled import operations, row_operations, serves, usable_for
from rtp_kernels.invariant import fast_linear
from rtp_kernels.norm_gate_up import cpu


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """The compiled form where the library works, else the `cpu` one."""
    return bind_gated("silu") if usable_for(dtype) else cpu.bind(dtype)


def bind_gated(activation: str) -> Callable[..., torch.Tensor]:
    """The operation with any activation the library has; bfloat16."""
    few, variant = operations().norm_gate_up, operations().Variant(0.0, activation)
    rows = row_operations()
    many = cpu.gated(fast_linear, rows.rms_norm, partial(rows.gate, activation=activation))

    def norm_gate_up(
        x: torch.Tensor,
        norm: torch.Tensor,
        eps: float,
        weight: Any,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if serves(weight, x):
            return few(x, norm, eps, weight.packed, bias, variant)
        return many(x, norm, eps, weight, bias)

    return norm_gate_up
