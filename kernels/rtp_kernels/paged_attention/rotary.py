"""Rotary position embedding, half-split layout (Su et al. 2021; GPT-NeoX order)."""

from __future__ import annotations

import torch


def rotary_tables(
    inv_freq: torch.Tensor, positions: torch.Tensor, dtype: torch.dtype, factor: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and signed sin [tokens, 1, 2 * len(inv_freq)], times `factor`, computed in float32.

    The sign of the first half of sin is flipped, so that rotating is
    ``x * cos + swap_halves(x) * sin``.
    """
    angles = positions.to(torch.float32)[:, None] * inv_freq.to(torch.float32)
    cos, sin = angles.cos().mul_(factor), angles.sin().mul_(factor)
    both_cos = torch.cat((cos, cos), dim=-1)
    both_sin = torch.cat((-sin, sin), dim=-1)
    return both_cos[:, None].to(dtype), both_sin[:, None].to(dtype)


def rotary_rows(inv_freq: torch.Tensor, num_positions: int, factor: float = 1.0) -> torch.Tensor:
    """float32 [num_positions, 2 * len(inv_freq)]: cos of every angle, then sin, times `factor`."""
    positions = torch.arange(num_positions, dtype=torch.float32)
    angles = positions[:, None] * inv_freq.to(torch.float32)
    return torch.cat((angles.cos(), angles.sin()), dim=-1).mul_(factor)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x [tokens, heads, head_dim]; dimensions past the tables' width pass through."""
    width = cos.shape[-1]
    if not width:
        return x
    if width == x.shape[-1]:
        return torch.addcmul(x * cos, x.roll(width // 2, dims=-1), sin)
    turned = x[..., :width]
    turned = torch.addcmul(turned * cos, turned.roll(width // 2, dims=-1), sin)
    return torch.cat((turned, x[..., width:]), dim=-1)
