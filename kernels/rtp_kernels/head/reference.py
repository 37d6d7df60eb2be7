"""Final RMS norm and head: x [rows, hidden], weight [vocab, hidden] -> float32 [rows, vocab]."""

from __future__ import annotations

from collections.abc import Callable

import torch

from rtp_kernels.norm_linear import reference


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """`norm_linear`, its result widened."""
    return widened(reference.bind(dtype))


def widened(norm_linear: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A head made of a `norm_linear` of any form."""

    def head(x: torch.Tensor, norm: torch.Tensor, eps: float, weight: torch.Tensor) -> torch.Tensor:
        return norm_linear(x, norm, eps, weight).float()

    return head
