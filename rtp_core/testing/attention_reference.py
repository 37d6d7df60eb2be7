"""Attention by its definition, over whole sequences and without any paging.

float64 throughout. A query sees a key iff the key's token precedes or is its own in the
row's order (in a tree: is its ancestor) and lies inside the window. Rotary embedding is the
half-split form: with d = rotary_dim, pair (x_i, x_{i+d/2}) turns by position * theta^(-2i/d).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rtp_core.api import ModelSpec, Scoring


def attend(
    qkv: torch.Tensor,
    positions: Sequence[int],
    visible: torch.Tensor,
    spec: ModelSpec,
) -> torch.Tensor:
    """qkv [tokens, (heads + 2 * kv_heads) * dim] of a whole sequence, not rotated.

    visible [new, tokens] bool for the last `new` tokens; answers [new, heads * dim] float64.
    """
    heads, kv_heads, dim = spec.num_heads, spec.num_kv_heads, spec.head_dim
    split = qkv.double().view(len(qkv), heads + 2 * kv_heads, dim)
    turned = rotate(split[:, : heads + kv_heads], positions, spec)
    ready = turned[-len(visible) :, :heads], turned[:, heads:], split[:, heads + kv_heads :]
    return attend_ready(ready, visible, Scoring(dim**-0.5))


def attend_ready(
    heads: tuple[torch.Tensor, torch.Tensor, torch.Tensor], visible: torch.Tensor, scoring: Scoring
) -> torch.Tensor:
    """q [new, heads, dim], k and v [tokens, kv_heads, dim] as they are -> [new, heads * dim]."""
    queries, keys, values = (one.double() for one in heads)
    group = queries.shape[1] // keys.shape[1]
    keys, values = (one.repeat_interleave(group, dim=1) for one in (keys, values))
    scores = torch.einsum("qhd,khd->hqk", queries, keys) * scoring.scale
    if scoring.softcap is not None:
        scores = scoring.softcap * torch.tanh(scores / scoring.softcap)
    scores = scores.masked_fill(~visible, float("-inf"))
    if scoring.sinks is not None:
        sinks = scoring.sinks.double()[:, None, None].expand(-1, len(queries), 1)
        scores = torch.cat((scores, sinks), dim=-1)
    weights = scores.softmax(dim=-1)[..., : len(keys)]
    return torch.einsum("hqk,khd->qhd", weights, values).flatten(1)


def rotate(x: torch.Tensor, positions: Sequence[int], spec: ModelSpec) -> torch.Tensor:
    """[tokens, heads, dim], each token turned by its position; default rotary only."""
    size = spec.rope.rotary_dim
    exponents = torch.arange(0, size, 2, dtype=torch.float64) / size
    angles = torch.tensor(positions, dtype=torch.float64)[:, None] * spec.rope.theta**-exponents
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    first, second, rest = x[..., : size // 2], x[..., size // 2 : size], x[..., size:]
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1)


def causal(num_tokens: int, num_new: int, window: int | None = None) -> torch.Tensor:
    """[new, tokens] bool: itself and what came before, at most `window` tokens of it."""
    queries = torch.arange(num_tokens - num_new, num_tokens)[:, None]
    keys = torch.arange(num_tokens)[None]
    mask = keys <= queries
    return mask if window is None else mask & (queries - keys < window)


def ancestors(parents: Sequence[int], num_past: int) -> tuple[torch.Tensor, list[int]]:
    """[drafts, past + drafts] bool and each draft's depth below the last known token (>= 1).

    `parents[i]` is an earlier draft, or -1 for the last known token.
    """
    mask = torch.zeros(len(parents), num_past + len(parents), dtype=torch.bool)
    mask[:, :num_past] = True
    depths: list[int] = []
    for index, parent in enumerate(parents):
        if parent >= 0:
            mask[index] |= mask[parent]
        mask[index, num_past + index] = True
        depths.append(1 if parent < 0 else depths[parent] + 1)
    return mask, depths
