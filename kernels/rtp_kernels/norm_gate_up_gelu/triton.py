"""GPU form: as `norm_gate_up`'s."""

from __future__ import annotations

from collections.abc import Callable

import torch

from rtp_kernels.gpu.forms import Choose
from rtp_kernels.norm_gate_up.triton import bind_gated


def bind(dtype: str, choose: Choose | None = None) -> Callable[..., torch.Tensor]:
    """Same for every dtype. `choose` replaces the shipped configurations."""
    del dtype
    return bind_gated("gelu_tanh", choose)
