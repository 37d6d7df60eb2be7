"""The forward pass of heads (Cai et al. 2024): residual blocks over one state, then logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from rtp_kernels.invariant import bind_linear


class HeadWeights(NamedTuple):
    """Blocks as (matrix, bias or None), and the matrix of logits in a form that `Heads` reads."""

    blocks: Sequence[tuple[torch.Tensor, torch.Tensor | None]]
    logits: Any


class Heads:
    """Head i, from 0, guesses the token two places and i behind a state's own."""

    def __init__(self, heads: Sequence[HeadWeights], dtype: str) -> None:
        self._heads = heads
        self._linear = bind_linear(dtype)

    def __len__(self) -> int:
        return len(self._heads)

    def logits(self, head: int, states: torch.Tensor) -> torch.Tensor:
        """[rows, hidden_size] behind the final norm -> float32 [rows, tokens of the head]."""
        x = states
        for matrix, bias in self._heads[head].blocks:
            x = x + functional.silu(self._linear(x, matrix, bias))
        return self._heads[head].logits(x)
