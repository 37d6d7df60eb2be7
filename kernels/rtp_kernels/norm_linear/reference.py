"""RMS norm (Zhang & Sennrich 2019), then a linear layer.

x [tokens, hidden], norm [hidden], weight [out, hidden], bias [out] or None -> [tokens, out].
The norm is computed in float32 and rounded to x's dtype before the product. Its weight comes
in x's dtype, as Llama has it (rounded before the weight is applied), or in float32, as Gemma
has it (rounded after).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional


def rms_norm(x: torch.Tensor, norm: torch.Tensor, eps: float) -> torch.Tensor:
    """x / sqrt(mean(x^2) + eps) * norm over the last dimension."""
    wide = x.float()
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return (norm * (wide * scale).to(norm.dtype)).to(x.dtype)


def norm_linear(
    x: torch.Tensor,
    norm: torch.Tensor,
    eps: float,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """The definition."""
    return functional.linear(rms_norm(x, norm, eps), weight, bias)


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """Same for every dtype."""
    del dtype
    return norm_linear
