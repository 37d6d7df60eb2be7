"""`attention` in plain torch, with the same roundings: its definition.

Queries and keys are normalised and rotated in float32 and rounded once to bfloat16; scores,
softmax and sums are float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rtp_kernels.paged_attention.plan import Geometry
from rtp_kernels_cpu.attention import Norms, Planes
from rtp_kernels_cpu.attention_plan import PagedPlan


@dataclass(frozen=True, slots=True)
class _Row:
    """One row of a plan: where its tokens begin, how many are new, its keys' slots, its tree."""

    begin: int
    num_new: int
    num_keys: int
    slots: torch.Tensor
    tree: list[int] | None


class PagedAttention:
    """See `attention.PagedAttention`."""

    def __init__(self, softcap: float = 0.0, norm_offset: float = 0.0) -> None:
        self._softcap = softcap
        self._norm_offset = norm_offset

    def __call__(
        self,
        qkv: torch.Tensor,
        planes: Planes,
        plan: PagedPlan,
        geometry: Geometry,
        norms: Norms = None,
        lse: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """See `attention.PagedAttention`."""
        queries = self.rope_write(qkv, planes, plan, geometry, norms)
        return self.attend(queries, planes, plan, geometry, lse)

    def rope_write(
        self,
        qkv: torch.Tensor,
        planes: Planes,
        plan: PagedPlan,
        geometry: Geometry,
        norms: Norms = None,
    ) -> torch.Tensor:
        """See `attention.PagedAttention`."""
        heads, kv_heads = geometry.num_heads, geometry.num_kv_heads
        split = qkv.float().unflatten(1, (heads + 2 * kv_heads, geometry.head_dim))
        q, k, v = split.split((heads, kv_heads, kv_heads), dim=1)
        if norms is not None:
            q = self._normed(q, norms[0], norms[2])
            k = self._normed(k, norms[1], norms[2])
        q, k = _rotated(q, plan).bfloat16(), _rotated(k, plan).bfloat16()
        for token, slot in enumerate(plan.slots):
            if slot >= 0:
                planes[0][:, slot] = k[token]
                planes[1][:, slot] = v[token].bfloat16()
        return q.flatten(1)

    def attend(
        self,
        queries: torch.Tensor,
        planes: Planes,
        plan: PagedPlan,
        geometry: Geometry,
        lse: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """See `attention.PagedAttention`."""
        q = queries.float().unflatten(1, (geometry.num_heads, geometry.head_dim))
        out = torch.empty_like(q)
        for row in _rows(plan, geometry.block_size):
            at = slice(row.begin, row.begin + row.num_new)
            keys, values = (
                plane[:, row.slots].float().repeat_interleave(geometry.group, dim=0)
                for plane in planes
            )
            scores = torch.einsum("qhd,hkd->hqk", q[at] * geometry.scale, keys)
            if self._softcap > 0:
                scores = self._softcap * torch.tanh(scores / self._softcap)
            scores.masked_fill_(~_visible(row, geometry.window), float("-inf"))
            if lse is not None:
                lse[at] = torch.logsumexp(scores, dim=-1).T
            out[at] = torch.einsum("hqk,hkd->qhd", scores.softmax(dim=-1), values)
        return out.flatten(1).to(queries.dtype)

    def _normed(self, x: torch.Tensor, norm: torch.Tensor, eps: float) -> torch.Tensor:
        inverse = 1.0 / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + eps)
        return x * inverse * (norm.float() + self._norm_offset)


def _rotated(x: torch.Tensor, plan: PagedPlan) -> torch.Tensor:
    width = plan.cos.shape[-1]
    turned, rest = x[..., :width], x[..., width:]
    swapped = turned.roll(width // 2, dims=-1)
    turned = turned * plan.cos[:, None] + swapped * plan.sin[:, None]
    return torch.cat((turned, rest), dim=-1)


def _rows(plan: PagedPlan, block_size: int) -> list[_Row]:
    rows = []
    for at in range(0, len(plan.rows), 5):
        begin, num_new, num_keys, first, tree = plan.rows[at : at + 5]
        blocks = torch.tensor(plan.tables[first : first - (-num_keys // block_size)])
        slots = blocks[:, None] * block_size + torch.arange(block_size)
        words = None if tree < 0 else list(plan.trees[tree : tree + num_new])
        rows.append(_Row(begin, num_new, num_keys, slots.flatten()[:num_keys], words))
    return rows


def _visible(row: _Row, window: int | None) -> torch.Tensor:
    """[num_new, num_keys] bool. In a tree, distance counts from ancestor to child."""
    past = row.num_keys - row.num_new
    positions = torch.arange(row.num_keys)
    seen = positions <= positions[past:, None]
    if row.tree is not None:
        bits = [[word >> j & 1 for j in range(row.num_new)] for word in row.tree]
        seen[:, past:] = torch.tensor(bits, dtype=torch.bool)
        positions[past:] = past - 1 + seen[:, past:].sum(dim=1)
    if window is not None:
        seen &= positions[past:, None] - positions < window
    return seen
