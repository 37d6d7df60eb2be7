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
        gate, up = functional.linear(_norm(x, own["mlp_norm"], spec), own["gate_up"]).chunk(2, -1)
        x = x + functional.linear(functional.silu(gate) * up, own["down"])
    x = _norm(x[first:], parameters["norm"].to(dtype), spec)
    return functional.linear(x, parameters["head"].to(dtype)).float()


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
