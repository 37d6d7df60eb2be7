"""GPU form: one kernel for one row; for more, the sum is left to whoever reads the stream."""

from __future__ import annotations

from collections.abc import Callable

import torch

from rtp_kernels.gpu.forms import Choose, Gemv, default
from rtp_kernels.gpu.gemv import gemv
from rtp_kernels.gpu.products import form_for, partial_sums
from rtp_kernels.gpu.residual import Stream, settled, updated


def bind(dtype: str, choose: Choose | None = None) -> Callable[..., Stream]:
    """Same for every dtype. `choose` replaces the shipped configurations."""
    del dtype
    form_of = choose or default()

    def linear_residual(
        x: torch.Tensor,
        weight: torch.Tensor,
        residual: Stream,
        bias: torch.Tensor | None = None,
    ) -> Stream:
        form = form_for(form_of, "linear_residual", x.shape[0], weight)
        if isinstance(form, Gemv):
            return gemv(x, weight, bias, form, residual=settled(residual).contiguous())
        return updated(residual, partial_sums(x, weight, bias, form))

    return linear_residual
