"""CPU forms of paged attention.

bfloat16 takes the fastest form by shape, as measured: one new token -> scaled dot product
attention with the query heads of a KV head folded into rows (one call over the keys' view);
many single tokens -> one padded call over gathered keys; prefill -> blocks of 64 queries,
keys cut to what the block can see.

float32 is exact in the sense of batching: every query's result has the same bits however
the prompt was chunked and whoever shares the step. Keys are taken in tiles of 128 aligned at
key 0, products always have at least 16 rows, and tiles are added in order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch.nn import functional

from rtp_kernels.norm_linear.cpu import rms_norm
from rtp_kernels.paged_attention.plan import (
    KEY_TILE,
    AttentionPlan,
    Batch,
    Geometry,
    RowKeys,
    all_rows,
    num_unseen,
)
from rtp_kernels.paged_attention.reference import Heads, split_heads, visible, write
from rtp_kernels.soft_cap.reference import soft_cap

QUERY_BLOCK = 64
MIN_ROWS = 16
Planes = tuple[torch.Tensor, torch.Tensor]
Norms = tuple[torch.Tensor, torch.Tensor, float] | None


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """The exact form for float32, the fast one otherwise."""
    return _exact if dtype == "float32" else _fast


def _fast(
    qkv: torch.Tensor | Heads,
    planes: Planes,
    plan: AttentionPlan,
    geometry: Geometry,
    norms: Norms = None,
    lse: torch.Tensor | None = None,
) -> torch.Tensor:
    q, k, v = split_heads(qkv, plan, geometry, norms, rms_norm)
    _write(planes, k, v, plan)
    if plan.batch is not None:
        return _batched(q, planes, plan.batch, geometry, lse)
    out = torch.empty_like(q)
    for row in plan.rows:
        at = slice(row.begin, row.begin + row.num_new)
        keys = _row_planes(planes, row)
        if row.num_new == 1 and lse is None and geometry.softcap is None:
            _single(q[at], keys, row, geometry, out[at])
        else:
            _blocked(q[at], keys, row, geometry, out[at], None if lse is None else lse[at])
    return out.flatten(1)


def _write(planes: Planes, k: torch.Tensor, v: torch.Tensor, plan: AttentionPlan) -> None:
    """One slice copy when the slots are a run, else by index."""
    if plan.first_slot < 0:
        write(*planes, k, v, plan)
        return
    end = plan.first_slot + k.shape[0]
    planes[0][:, plan.first_slot : end].copy_(k.transpose(0, 1))
    planes[1][:, plan.first_slot : end].copy_(v.transpose(0, 1))


def _row_planes(planes: Planes, row: RowKeys) -> Planes:
    """Keys and values [kv_heads, num_keys, head_dim]: a view if the slots are a run."""
    if row.index is None:
        begin, end = row.first_slot, row.first_slot + row.num_keys
        return planes[0][:, begin:end], planes[1][:, begin:end]
    return planes[0].index_select(1, row.index), planes[1].index_select(1, row.index)


def _single(
    q: torch.Tensor, planes: Planes, row: RowKeys, geometry: Geometry, out: torch.Tensor
) -> None:
    keys, values = planes
    if geometry.window is not None and row.num_keys > geometry.window:
        keys, values = keys[:, -geometry.window :], values[:, -geometry.window :]
    folded = q.view(1, geometry.num_kv_heads, geometry.group, geometry.head_dim)
    done = functional.scaled_dot_product_attention(
        folded, keys[None], values[None], scale=geometry.scale
    )
    out.copy_(done.view(out.shape))


def _batched(
    q: torch.Tensor,
    planes: Planes,
    batch: Batch,
    geometry: Geometry,
    lse: torch.Tensor | None,
) -> torch.Tensor:
    rows, kv_heads, dim = q.shape[0], geometry.num_kv_heads, geometry.head_dim
    shape = (kv_heads, rows, batch.width, dim)
    keys = planes[0].index_select(1, batch.index).view(shape)
    values = planes[1].index_select(1, batch.index).view(shape)
    folded = q.reshape(rows, kv_heads, geometry.group, dim)
    if batch.width <= KEY_TILE and lse is None and geometry.softcap is None:
        done = functional.scaled_dot_product_attention(
            folded,
            keys.transpose(0, 1),
            values.transpose(0, 1),
            attn_mask=batch.bias,
            scale=geometry.scale,
        )
        return done.reshape(rows, -1)
    scores = _scaled(torch.matmul(folded.transpose(0, 1), keys.transpose(2, 3)), geometry)
    scores.add_(batch.bias.view(1, rows, 1, batch.width))
    if lse is not None:
        lse.view(rows, kv_heads, -1).copy_(scores.logsumexp(dim=-1).transpose(0, 1))
    weights = scores.softmax(dim=-1).to(values.dtype)
    return torch.matmul(weights, values).transpose(0, 1).reshape(rows, -1)


def _blocked(
    q: torch.Tensor,
    planes: Planes,
    row: RowKeys,
    geometry: Geometry,
    out: torch.Tensor,
    lse: torch.Tensor | None,
) -> None:
    keys, values = planes
    past = row.num_keys - row.num_new
    mask = visible(row, geometry.window, q.device) if _irregular(row, geometry) else None
    window = geometry.window if row.tree is None else None
    for begin in range(0, row.num_new, QUERY_BLOCK):
        end = min(begin + QUERY_BLOCK, row.num_new)
        last = row.num_keys if row.tree is not None else past + end
        seen = slice(num_unseen(past + begin, window, 1), last)
        folded = _fold(q[begin:end], geometry)
        scores = _scaled(torch.bmm(folded, keys[:, seen].transpose(1, 2)), geometry)
        scores = scores.view(geometry.num_heads, end - begin, -1)
        if mask is not None:
            scores.masked_fill_(~mask[begin:end, seen], float("-inf"))
        else:
            scores[:, :, past + begin :].add_(_triangle(end - begin, q.device))
        if lse is not None:
            _unfold(scores.logsumexp(dim=-1), lse[begin:end], geometry)
        weights = scores.softmax(dim=-1).to(values.dtype).view(*folded.shape[:2], -1)
        _unfold(torch.bmm(weights, values[:, seen]), out[begin:end], geometry)


def _scaled(products: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    """float32 scores."""
    scores = products.float().mul_(geometry.scale)
    return scores if geometry.softcap is None else soft_cap(scores, geometry.softcap)


def _irregular(row: RowKeys, geometry: Geometry) -> bool:
    window = geometry.window
    return row.tree is not None or (window is not None and row.num_keys > window)


@lru_cache(maxsize=2 * QUERY_BLOCK)
def _triangle(size: int, device: torch.device) -> torch.Tensor:
    """[size, size] float32, -inf above the diagonal."""
    return torch.full((size, size), float("-inf"), device=device).triu_(1)


def _fold(q: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    """[n, heads, dim] -> [kv_heads, group * n, dim]."""
    split = q.view(q.shape[0], geometry.num_kv_heads, geometry.group, geometry.head_dim)
    return split.permute(1, 2, 0, 3).reshape(geometry.num_kv_heads, -1, geometry.head_dim)


def _unfold(done: torch.Tensor, out: torch.Tensor, geometry: Geometry) -> None:
    """Inverse of `_fold`, into out [n, heads, dim]; without dim, into out [n, heads]."""
    shape = (geometry.num_kv_heads, geometry.group)
    split = done.reshape(*shape, out.shape[0], -1)
    out.view(out.shape[0], *shape, -1).copy_(split.permute(2, 0, 1, 3))


def _exact(
    qkv: torch.Tensor | Heads,
    planes: Planes,
    plan: AttentionPlan,
    geometry: Geometry,
    norms: Norms = None,
    lse: torch.Tensor | None = None,
) -> torch.Tensor:
    q, k, v = split_heads(qkv, plan, geometry, norms, rms_norm)
    _write(planes, k, v, plan)
    out = torch.empty_like(q)
    for row in all_rows(plan):
        tiles = _tiled(_row_planes(planes, row), row.num_keys)
        mask = visible(row, geometry.window, q.device)
        mask = functional.pad(mask, (0, -row.num_keys % KEY_TILE))
        for begin in range(0, row.num_new, QUERY_BLOCK):
            end = min(begin + QUERY_BLOCK, row.num_new)
            at = slice(row.begin + begin, row.begin + end)
            logs = None if lse is None else lse[at]
            seen = _seen_tiles(row, begin, end, geometry.window)
            near = (tiles[0][:, seen], tiles[1][:, seen])
            columns = slice(seen.start * KEY_TILE, seen.stop * KEY_TILE)
            _exact_block(q[at], near, mask[begin:end, columns], geometry, out[at], logs)
    return out.flatten(1)


def _seen_tiles(row: RowKeys, begin: int, end: int, window: int | None) -> slice:
    """Tiles with a key that one of the row's queries begin … end can see.

    A tile left out would have added exact zeros.
    """
    past = row.num_keys - row.num_new
    if row.tree is not None:
        return slice(0, -(-row.num_keys // KEY_TILE))
    first = num_unseen(past + begin, window, KEY_TILE) // KEY_TILE
    return slice(first, -(-(past + end) // KEY_TILE))


def _tiled(planes: Planes, num_keys: int) -> Planes:
    """Keys as [kv_heads, tiles, dim, 128] and values as [kv_heads, tiles, 128, dim]."""
    short = -num_keys % KEY_TILE
    keys, values = (functional.pad(plane, (0, 0, 0, short)) for plane in planes)
    shape = (keys.shape[0], -1, KEY_TILE, keys.shape[2])
    return keys.reshape(shape).transpose(2, 3).contiguous(), values.reshape(shape)


def _exact_block(
    q: torch.Tensor,
    tiles: Planes,
    mask: torch.Tensor,
    geometry: Geometry,
    out: torch.Tensor,
    lse: torch.Tensor | None,
) -> None:
    keys, values = tiles
    num_rows = geometry.group * q.shape[0]
    folded = _fold(q, geometry)
    folded = functional.pad(folded, (0, 0, 0, max(0, MIN_ROWS - num_rows)))
    scores = _scaled(torch.matmul(folded[:, None], keys)[:, :, :num_rows], geometry)
    seen = mask.unflatten(1, (-1, KEY_TILE)).transpose(0, 1)
    scores.masked_fill_(~seen.repeat(1, geometry.group, 1), float("-inf"))
    peak = scores.amax(dim=(1, 3), keepdim=True)
    weights = torch.exp(scores - peak)
    sums = weights.sum(dim=3, keepdim=True)
    weights = functional.pad(weights, (0, 0, 0, max(0, MIN_ROWS - num_rows)))
    parts = torch.matmul(weights, values)[:, :, :num_rows]
    total, norm = parts[:, 0].clone(), sums[:, 0].clone()
    for tile in range(1, parts.shape[1]):
        total += parts[:, tile]
        norm += sums[:, tile]
    _unfold(total / norm, out, geometry)
    if lse is not None:
        _unfold(peak[:, 0] + norm.log(), lse, geometry)
