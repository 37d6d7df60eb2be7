"""Linear layer, RMS norm of its output, added to the residual stream.

x [tokens, in], weight [hidden, in], norm [hidden], residual [tokens, hidden], bias [hidden] or
None -> [tokens, hidden]. Norm as in `norm_linear`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from rtp_kernels.norm_linear.reference import rms_norm


def linear_norm_residual(
    x: torch.Tensor,
    weight: torch.Tensor,
    norm: torch.Tensor,
    eps: float,
    residual: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """The definition."""
    return residual + rms_norm(functional.linear(x, weight, bias), norm, eps)


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """Same for every dtype."""
    del dtype
    return linear_norm_residual
