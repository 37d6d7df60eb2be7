"""Compiled form: as `norm_gate_up`'s."""

from __future__ import annotations

from collections.abc import Callable

import torch

from rtp_kernels.compiled import usable_for
from rtp_kernels.norm_gate_up.compiled import bind_gated
from rtp_kernels.norm_gate_up_gelu import cpu


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """The compiled form where the library works, else the `cpu` one."""
    return bind_gated("gelu_tanh") if usable_for(dtype) else cpu.bind(dtype)
