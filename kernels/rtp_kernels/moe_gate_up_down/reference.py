"""Mixture of SwiGLU experts, added to the residual stream.

x [tokens, hidden], norm [hidden], weights (router [experts, hidden], gate_up [experts, 2 *
width, hidden] with gate rows first, down [experts, hidden, width]) -> [tokens, hidden].

The router's scores go through a float32 softmax over all experts; the `top_k` largest
probabilities, divided by their sum if `normalize`, weigh their experts' outputs. The weighted
sum is made in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from rtp_kernels.norm_linear.reference import rms_norm

ExpertWeights = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def choose_experts(
    scores: torch.Tensor, top_k: int, normalize: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """scores [tokens, experts] -> float32 shares and int64 experts, both [tokens, top_k]."""
    probabilities = scores.softmax(dim=-1, dtype=torch.float32)
    shares, experts = probabilities.topk(top_k, dim=-1)
    if normalize:
        shares = shares / shares.sum(dim=-1, keepdim=True)
    return shares, experts


def moe_gate_up_down(
    x: torch.Tensor,
    norm: torch.Tensor,
    eps: float,
    weights: ExpertWeights,
    top_k: int,
    normalize: bool,
) -> torch.Tensor:
    """The definition, one token after the other."""
    router, gate_up, down = weights
    normed = rms_norm(x, norm, eps)
    shares, experts = choose_experts(functional.linear(normed, router), top_k, normalize)
    out = torch.empty_like(x)
    for token in range(x.shape[0]):
        total = torch.zeros(x.shape[1], device=x.device)
        for share, expert in zip(shares[token], experts[token], strict=True):
            gate, up = functional.linear(normed[token], gate_up[expert]).chunk(2, dim=-1)
            done = functional.linear(functional.silu(gate) * up, down[expert])
            total += share * done.float()
        out[token] = x[token] + total.to(x.dtype)
    return out


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """Same for every dtype."""
    del dtype
    return moe_gate_up_down
