"""GPU form: logits are summed and stored in float32, never rounded between."""

from __future__ import annotations

from collections.abc import Callable

import torch

from rtp_kernels.gpu.forms import Choose, Gemv, default
from rtp_kernels.gpu.gemv import gemv
from rtp_kernels.gpu.products import form_for, wide_product
from rtp_kernels.gpu.residual import Stream, normed, settled


def bind(dtype: str, choose: Choose | None = None) -> Callable[..., torch.Tensor]:
    """Same for every dtype. `choose` replaces the shipped configurations."""
    del dtype
    form_of = choose or default()

    def head(x: Stream, norm: torch.Tensor, eps: float, weight: torch.Tensor) -> torch.Tensor:
        form = form_for(form_of, "head", x.shape[0], weight)
        if isinstance(form, Gemv):
            wide = torch.float32
            return gemv(settled(x), weight, None, form, norm=norm, eps=eps, out_dtype=wide)
        return wide_product(normed(x, norm, eps), weight, form)

    return head
