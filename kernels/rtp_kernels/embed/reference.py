"""Embedding rows: ids int64 [tokens], table [vocab, hidden] -> [tokens, hidden]."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional


def embed(token_ids: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """One table row a token."""
    return functional.embedding(token_ids, table)


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """Same for every dtype."""
    del dtype
    return embed
