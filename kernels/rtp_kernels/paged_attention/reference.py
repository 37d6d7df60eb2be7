"""Rotary, write to the pages, attention over the pages: the definition.

qkv [tokens, (heads + 2 * kv_heads) * head_dim] -> [tokens, heads * head_dim]. Keys are
normalised (if `norms` are given) and rotated before they are stored; heads (q, k, v) that are
ready may stand in for qkv, and neither happens. Softmax in float32. A key is visible iff it
precedes or equals the query in its row's order (or is its ancestor in a tree) and lies inside
the window.

`lse` float32 [tokens, heads], if given, receives log(sum(exp(score))) of every query and head:
what `merge_attention` needs to join results over disjoint sets of keys.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from rtp_kernels.norm_linear.reference import rms_norm
from rtp_kernels.paged_attention.plan import AttentionPlan, Geometry, RowKeys, all_rows
from rtp_kernels.paged_attention.rotary import rotate
from rtp_kernels.soft_cap.reference import soft_cap


def visible(keys: RowKeys, window: int | None, device: torch.device) -> torch.Tensor:
    """[num_new, num_keys] bool mask of a row. In a tree, distance counts from ancestor to child."""
    past = keys.num_keys - keys.num_new
    positions = torch.arange(keys.num_keys, device=device)
    mask = positions <= positions[past:, None]
    if keys.tree is not None:
        mask[:, past:] = keys.tree
        positions[past:] = past - 1 + keys.tree.sum(dim=1)
    if window is not None:
        mask &= positions[past:, None] - positions < window
    return mask


Heads = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""q [tokens, heads, dim], k and v [tokens, kv_heads, dim], ready for attention."""


def split_heads(
    qkv: torch.Tensor | Heads,
    plan: AttentionPlan,
    geometry: Geometry,
    norms: tuple[torch.Tensor, torch.Tensor, float] | None,
    normalize: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor] = rms_norm,
) -> Heads:
    """Rotated q and k, plain v; heads that are ready pass through."""
    if not isinstance(qkv, torch.Tensor):
        return qkv
    heads, kv_heads = geometry.num_heads, geometry.num_kv_heads
    split = qkv.view(qkv.shape[0], heads + 2 * kv_heads, geometry.head_dim)
    turned = split[:, : heads + kv_heads]
    if norms is not None:
        q_norm, k_norm, eps = norms
        q = normalize(turned[:, :heads], q_norm, eps)
        k = normalize(turned[:, heads:], k_norm, eps)
        turned = torch.cat((q, k), dim=1)
    turned = rotate(turned, plan.cos, plan.sin)
    return turned[:, :heads], turned[:, heads:], split[:, heads + kv_heads :]


def write(
    plane_k: torch.Tensor,
    plane_v: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    plan: AttentionPlan,
) -> None:
    """Store k and v [tokens, kv_heads, dim] in their slots of the planes."""
    if plan.writers is not None:
        k, v = k[plan.writers], v[plan.writers]
    plane_k.index_copy_(1, plan.slots, k.transpose(0, 1))
    plane_v.index_copy_(1, plan.slots, v.transpose(0, 1))


def paged_attention(
    qkv: torch.Tensor | Heads,
    planes: tuple[torch.Tensor, torch.Tensor],
    plan: AttentionPlan,
    geometry: Geometry,
    norms: tuple[torch.Tensor, torch.Tensor, float] | None = None,
    lse: torch.Tensor | None = None,
) -> torch.Tensor:
    """The definition, one row after the other, in float32."""
    q, k, v = split_heads(qkv, plan, geometry, norms)
    write(*planes, k, v, plan)
    out = torch.empty_like(q)
    for keys in all_rows(plan):
        at = slice(keys.begin, keys.begin + keys.num_new)
        key, value = (_keys(plane, keys, geometry) for plane in planes)
        scores = torch.einsum("qhd,hkd->hqk", q[at].float(), key) * geometry.scale
        if geometry.softcap is not None:
            scores = soft_cap(scores, geometry.softcap)
        scores.masked_fill_(~visible(keys, geometry.window, q.device), float("-inf"))
        if lse is not None:
            lse[at] = torch.logsumexp(scores, dim=-1).T
        out[at] = torch.einsum("hqk,hkd->qhd", scores.softmax(dim=-1), value).to(out.dtype)
    return out.flatten(1)


def _keys(plane: torch.Tensor, keys: RowKeys, geometry: Geometry) -> torch.Tensor:
    """float32 [heads, num_keys, dim] of a row, KV heads repeated for their query heads."""
    slots = keys.index
    if slots is None:
        slots = torch.arange(keys.num_keys, device=plane.device) + keys.first_slot
    return plane[:, slots].float().repeat_interleave(geometry.group, dim=0)


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """Same for every dtype."""
    del dtype
    return paged_attention
