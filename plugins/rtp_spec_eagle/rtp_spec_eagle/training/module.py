"""An EAGLE-3 head in plain torch (Li et al. 2025, arXiv 2503.01840), its weights in float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""q [..., heads, dim], k and v [..., kv_heads, dim] -> [..., heads, dim]."""
ROPE_THETA = 10000.0
"""The drafter's own, whatever the target's."""
_STD, _RESIDUAL_STD = 0.02, 0.005


@dataclass(frozen=True, slots=True)
class HeadShape:
    """Sizes of the one decoder layer; `captured` states of `target_hidden` each are fused."""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    norm_eps: float
    target_hidden: int
    captured: int
    draft_vocab: int


def _normal(*size: int, std: float = _STD) -> nn.Parameter:
    return nn.Parameter(torch.randn(*size) * std)


def _ones(size: int) -> nn.Parameter:
    return nn.Parameter(torch.ones(size))


class Eagle3(nn.Module):
    """One decoder layer over (token embedding, fused or fed back state); see `layer`.

    `scale` [captured * target_hidden] divides captured states before they are fused: those of
    the first token are a thousand times larger than others, and learning starts from inputs of
    one size. It is folded into `fc` where the head is published.
    """

    scale: torch.Tensor
    vocab_ids: torch.Tensor

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.shape = shape
        hidden, wide = shape.hidden, 2 * shape.hidden
        q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.fc = _normal(hidden, shape.captured * shape.target_hidden)
        self.q_proj, self.k_proj, self.v_proj = (
            _normal(q, wide),
            _normal(kv, wide),
            _normal(kv, wide),
        )
        self.o_proj = _normal(hidden, q, std=_RESIDUAL_STD)
        self.gate_proj = _normal(shape.intermediate, hidden)
        self.up_proj = _normal(shape.intermediate, hidden)
        self.down_proj = _normal(hidden, shape.intermediate, std=_RESIDUAL_STD)
        self.input_layernorm, self.hidden_norm = _ones(hidden), _ones(hidden)
        self.post_attention_layernorm, self.norm = _ones(hidden), _ones(hidden)
        self.lm_head = _normal(shape.draft_vocab, hidden)
        self.register_buffer("scale", torch.ones(shape.captured * shape.target_hidden))
        self.register_buffer("vocab_ids", torch.zeros(shape.draft_vocab, dtype=torch.int64))

    def fuse(self, captured: torch.Tensor) -> torch.Tensor:
        """[..., captured * target_hidden] -> [..., hidden]."""
        return self._linear(captured / self.scale.to(captured.dtype), self.fc)

    def layer(
        self, embedded: torch.Tensor, state: torch.Tensor, position: torch.Tensor, attend: Attend
    ) -> torch.Tensor:
        """Both [..., hidden] -> [..., hidden], which is fed back.

        `position` broadcasts over [...].
        """
        shape = self.shape
        both = torch.cat(
            (self._norm(embedded, self.input_layernorm), self._norm(state, self.hidden_norm)), -1
        )
        rotation = _rotation(position, shape.head_dim, both.dtype)
        q = _rotate(self._heads(both, self.q_proj), *rotation)
        k = _rotate(self._heads(both, self.k_proj), *rotation)
        out = attend(q, k, self._heads(both, self.v_proj))
        state = state + self._linear(out.flatten(-2), self.o_proj)
        normed = self._norm(state, self.post_attention_layernorm)
        gate = functional.silu(self._linear(normed, self.gate_proj))
        return state + self._linear(gate * self._linear(normed, self.up_proj), self.down_proj)

    def logits(self, state: torch.Tensor) -> torch.Tensor:
        """[rows, hidden] -> [rows, draft_vocab]."""
        return self._linear(self._norm(state, self.norm), self.lm_head)

    def _heads(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return self._linear(x, weight).unflatten(-1, (-1, self.shape.head_dim))

    def _norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x, x.shape[-1:], weight.to(x.dtype), self.shape.norm_eps)

    def _linear(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, weight.to(x.dtype))


def _rotation(
    position: torch.Tensor, dim: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin [..., 1, dim]."""
    exponents = torch.arange(0, dim, 2, device=position.device, dtype=torch.float32) / dim
    angles = (position.float()[..., None] * ROPE_THETA**-exponents)[..., None, :]
    both = torch.cat((angles, angles), dim=-1)
    return both.cos().to(dtype), both.sin().to(dtype)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
