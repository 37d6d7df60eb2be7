"""Attention over the union of disjoint key sets, from the attention over each.

parts [n, tokens, heads, dim] and their log-sum-exp lse [n, tokens, heads] -> attention
[tokens, heads, dim] and lse float32 [tokens, heads] over all keys. A part without visible
keys has lse -inf and is left out whatever it holds; where all parts are (or n is 0) the
result is zero with lse -inf.
"""

from __future__ import annotations

from collections.abc import Callable

import torch


def merge_attention(parts: torch.Tensor, lse: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The definition."""
    total = lse.float().logsumexp(dim=0)
    weights = (lse - total.masked_fill(total.isneginf(), 0.0)).exp()[..., None]
    used = parts.float().masked_fill(weights == 0.0, 0.0)
    return (weights * used).sum(dim=0).to(parts.dtype), total


def bind(dtype: str) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """Same for every dtype."""
    del dtype
    return merge_attention
