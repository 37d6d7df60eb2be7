"""Linear layer added to the residual stream.

x [tokens, in], weight [hidden, in], residual [tokens, hidden], bias [hidden] or None
-> [tokens, hidden].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional


def linear_residual(
    x: torch.Tensor,
    weight: torch.Tensor,
    residual: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """The definition."""
    return residual + functional.linear(x, weight, bias)


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """Same for every dtype."""
    del dtype
    return linear_residual
