"""The largest logit of each row and its token: what greedy decoding reads of a step's logits."""

from __future__ import annotations

import torch

TILE = 128
FEW_ROWS = 4
"""So few stay in cache and cost less in one pass."""


def best(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 [rows, vocab] -> largest values [rows] and their ids int64 [rows].

    The lowest id wins a tie; a row with NaN gives the value NaN and some id. A maximum without
    its position runs in vector registers, one with it does not, so positions are sought only
    among the maxima of tiles and inside the tile that won.
    """
    rows, vocab = logits.shape
    body = vocab - vocab % TILE
    if body == 0 or rows <= FEW_ROWS:
        return torch.max(logits, dim=-1)
    tiles = logits[:, :body].unflatten(1, (-1, TILE))
    values, tile = tiles.amax(-1).max(-1)
    winners = tiles[torch.arange(rows, device=logits.device), tile]
    ids = tile * TILE + winners.argmax(-1)
    if body == vocab:
        return values, ids
    tail, at = logits[:, body:].max(-1)
    return torch.maximum(values, tail), torch.where(tail > values, at + body, ids)
