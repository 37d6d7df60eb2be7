"""CPU form: the CPU's `norm_linear`, its result widened."""

from __future__ import annotations

from collections.abc import Callable

import torch

from rtp_kernels.head.reference import widened
from rtp_kernels.norm_linear import cpu


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """float32 rows do not depend on the batch."""
    return widened(cpu.bind(dtype))
