"""GPU form: one kernel for one row, a norm and a gated product for more."""

from __future__ import annotations

from collections.abc import Callable

import torch

from rtp_kernels.gpu.forms import Choose, Gemv, default
from rtp_kernels.gpu.gemv import gemv
from rtp_kernels.gpu.products import form_for, gated
from rtp_kernels.gpu.residual import Stream, normed, settled


def bind(dtype: str, choose: Choose | None = None) -> Callable[..., torch.Tensor]:
    """Same for every dtype. `choose` replaces the shipped configurations."""
    del dtype
    return bind_gated("silu", choose)


def bind_gated(activation: str, choose: Choose | None) -> Callable[..., torch.Tensor]:
    """The operation with another activation of the gate, "silu" or "gelu_tanh"."""
    form_of = choose or default()

    def norm_gate_up(
        x: Stream,
        norm: torch.Tensor,
        eps: float,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        form = form_for(form_of, "norm_gate_up", x.shape[0], weight)
        if isinstance(form, Gemv):
            fused = {"norm": norm, "eps": eps, "activation": activation}
            return gemv(settled(x), weight, bias, form, **fused)
        return gated(normed(x, norm, eps), weight, bias, form, activation)

    return norm_gate_up
