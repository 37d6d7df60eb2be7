"""CPU form: tokens are grouped by expert, so that each expert's weights are read once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from rtp_kernels.invariant import bind_linear
from rtp_kernels.moe_gate_up_down.reference import ExpertWeights, choose_experts
from rtp_kernels.norm_gate_up.cpu import exact_silu
from rtp_kernels.norm_linear.cpu import rms_norm


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """As the reference, with float32 rows independent of the batch."""
    linear = bind_linear(dtype)
    silu = exact_silu if dtype == "float32" else functional.silu

    def moe_gate_up_down(
        x: torch.Tensor,
        norm: torch.Tensor,
        eps: float,
        weights: ExpertWeights,
        top_k: int,
        normalize: bool,
    ) -> torch.Tensor:
        router, gate_up, down = weights
        normed = rms_norm(x, norm, eps)
        shares, experts = choose_experts(linear(normed, router, None), top_k, normalize)
        order = experts.flatten().argsort(stable=True)
        rows = normed[order // top_k]
        done, begin = torch.empty_like(rows), 0
        for expert, count in enumerate(_counts(experts, router.shape[0])):
            if count:
                at = slice(begin, begin + count)
                gate, up = linear(rows[at], gate_up[expert], None).chunk(2, dim=-1)
                done[at] = linear(silu(gate).mul_(up), down[expert], None)
                begin += count
        return x + _weighted_sum(done[order.argsort()], shares).to(x.dtype)

    return moe_gate_up_down


def _counts(experts: torch.Tensor, num_experts: int) -> list[int]:
    """Tokens of every expert."""
    return torch.bincount(experts.flatten(), minlength=num_experts).tolist()


def _weighted_sum(parts: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """parts [tokens * top_k, hidden], shares [tokens, top_k] -> float32 [tokens, hidden].

    Added choice by choice, so that the order of the sum is the same for any batch.
    """
    top_k = shares.shape[1]
    scaled = parts.float().view(-1, top_k, parts.shape[1]).mul(shares[:, :, None])
    total = scaled[:, 0]
    for choice in range(1, top_k):
        total = total + scaled[:, choice]
    return total
