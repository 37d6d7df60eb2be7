"""Medusa heads (Cai et al. 2024, arXiv 2401.10774) in plain torch, their weights in float32."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Medusa(nn.Module):
    """`heads` stacks of residual blocks, x + SiLU(linear(x)); they begin as identities.

    They share rows of the target's own output matrix, those of `vocab_ids`.
    """

    vocab_ids: torch.Tensor

    def __init__(self, heads: int, blocks: int, hidden: int, draft_vocab: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(heads, blocks, hidden, hidden))
        self.bias = nn.Parameter(torch.zeros(heads, blocks, hidden))
        self.register_buffer("vocab_ids", torch.zeros(draft_vocab, dtype=torch.int64))

    @property
    def heads(self) -> int:
        """Tokens that are guessed beyond the target's own."""
        return self.weight.shape[0]

    @property
    def blocks(self) -> int:
        """Of each head."""
        return self.weight.shape[1]

    def forward(self, head: int, state: torch.Tensor) -> torch.Tensor:
        """The target's normed last state [rows, hidden] -> what its output matrix reads."""
        for block in range(self.blocks):
            weight, bias = self.weight[head, block], self.bias[head, block]
            turned = functional.linear(state, weight.to(state.dtype), bias.to(state.dtype))
            state = state + functional.silu(turned)
        return state
