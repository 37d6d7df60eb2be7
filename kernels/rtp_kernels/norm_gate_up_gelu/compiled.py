"""Compiled form for few rows of weights that kept their codes."""

from __future__ import annotations

from collections.abc import Callable

import torch

from rtp_kernels.compiled import bind_compiled_gated
from rtp_kernels.norm_gate_up_gelu import cpu


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """The compiled form where it serves, else the `cpu` one."""
    return bind_compiled_gated(dtype, cpu.bind(dtype), "gelu_tanh")
