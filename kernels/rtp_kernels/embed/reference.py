"""Embedding rows: ids int64 [tokens], table [vocab, hidden] -> [tokens, hidden]."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from rtp_kernels.compiled import CompiledLinear
from rtp_kernels.few_rows import FewRowsLinear


def embed(
    token_ids: torch.Tensor, table: torch.Tensor | FewRowsLinear | CompiledLinear
) -> torch.Tensor:
    """One table row a token; of a tied head that has codes, the dense row."""
    dense = table if isinstance(table, torch.Tensor) else table.dense
    return functional.embedding(token_ids, dense)


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """Same for every dtype."""
    del dtype
    return embed
