"""GPU form: one kernel for one row, a norm and a product for more."""

from __future__ import annotations

from collections.abc import Callable

import torch

from rtp_kernels.gpu.forms import Choose, Gemv, default
from rtp_kernels.gpu.gemv import gemv
from rtp_kernels.gpu.products import form_for, product
from rtp_kernels.gpu.residual import Stream, normed, settled


def bind(dtype: str, choose: Choose | None = None) -> Callable[..., torch.Tensor]:
    """Same for every dtype. `choose` replaces the shipped configurations."""
    del dtype
    form_of = choose or default()

    def norm_linear(
        x: Stream,
        norm: torch.Tensor,
        eps: float,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        form = form_for(form_of, "norm_linear", x.shape[0], weight)
        if isinstance(form, Gemv):
            return gemv(settled(x), weight, bias, form, norm=norm, eps=eps)
        return product(normed(x, norm, eps), weight, bias, form)

    return norm_linear
