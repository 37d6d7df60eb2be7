"""Qwen3 in ordinary torch operations, one text at a time: what logits are compared with."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional

from rtp_core.api import ModelSpec

Parameters = Mapping[str, torch.Tensor]


@torch.inference_mode()
def logits(
    ids: torch.Tensor, parameters: Parameters, spec: ModelSpec, dtype: torch.dtype, first: int
) -> torch.Tensor:
    """float32 [length - first, vocab] of ids [length], computed in `dtype`, weights cast to it.

    `parameters` as the engine names them: q, k, v stacked, gate and up stacked.
    """
    x = functional.embedding(ids, parameters["embed"]).to(dtype)
    for layer in range(spec.num_layers):
        at = f"layers.{layer}."
        own = {
            name.removeprefix(at): value.to(dtype)
            for name, value in parameters.items()
            if name.startswith(at)
        }
        x = x + _attention(_norm(x, own["attention_norm"], spec), own, spec)
        x = x + _feed_forward(_norm(x, own["mlp_norm"], spec), own, spec)
    x = _norm(x[first:], parameters["norm"].to(dtype), spec)
    return functional.linear(x, parameters["head"].to(dtype)).float()


def _feed_forward(x: torch.Tensor, own: Parameters, spec: ModelSpec) -> torch.Tensor:
    if "router" not in own or spec.experts is None:
        return _gated(x, own["gate_up"], own["down"])
    number, top_k = spec.experts.num_experts, spec.experts.top_k
    scores = functional.linear(x, own["router"]).float().softmax(-1)
    shares, chosen = scores.topk(top_k, -1)
    if spec.experts.normalize:
        shares = shares / shares.sum(-1, keepdim=True)
    out = torch.zeros_like(x, dtype=torch.float32)
    both, down = (own[name].chunk(number) for name in ("expert_gate_up", "expert_down"))
    for expert in range(number):
        token, choice = (chosen == expert).nonzero(as_tuple=True)
        done = _gated(x[token], both[expert], down[expert]).float()
        out.index_add_(0, token, done * shares[token, choice, None])
    return out.to(x.dtype)


def _gated(x: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    gate, up = functional.linear(x, gate_up).chunk(2, -1)
    return functional.linear(functional.silu(gate) * up, down)


def _norm(x: torch.Tensor, weight: torch.Tensor, spec: ModelSpec) -> torch.Tensor:
    wide = x.float()
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + spec.norm_eps)
    return weight * (wide * scale).to(x.dtype)


def _attention(x: torch.Tensor, own: Parameters, spec: ModelSpec) -> torch.Tensor:
    length, dim = x.shape[0], spec.head_dim
    counts = (spec.num_heads, spec.num_kv_heads, spec.num_kv_heads)
    heads = functional.linear(x, own["qkv"]).view(length, sum(counts), dim).transpose(0, 1)
    q, k, v = heads.split(counts)
    q, k = (
        _rotated(_norm(part, own[name], spec), spec.rope.theta)
        for part, name in ((q, "q_norm"), (k, "k_norm"))
    )
    group = spec.num_heads // spec.num_kv_heads
    k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
    scores = q @ k.transpose(1, 2) * dim**-0.5
    future = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
    scores = scores.masked_fill(future, float("-inf"))
    weights = scores.float().softmax(-1).to(x.dtype)
    out = (weights @ v).transpose(0, 1).reshape(length, -1)
    return functional.linear(out, own["o"])


def _rotated(x: torch.Tensor, theta: float) -> torch.Tensor:
    """x [heads, length, dim]; half-split layout."""
    length, dim = x.shape[1:]
    exponents = torch.arange(0, dim, 2, device=x.device).float() / dim
    angles = torch.arange(length, device=x.device).float()[:, None] / theta**exponents
    cos, sin = (torch.cat((one, one), -1).to(x.dtype) for one in (angles.cos(), angles.sin()))
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat((-right, left), -1) * sin
