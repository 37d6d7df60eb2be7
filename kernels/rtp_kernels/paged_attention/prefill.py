"""Prefill through torch's fused attention, where it is the faster form.

Which form wins depends on the processor: on one with matrix tiles the fused operator took a
third of the blocked form's time at 1,024 tokens, on one without it took half as long again. So
it is measured, once a process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache

import torch
from torch.nn import functional

from rtp_kernels.paged_attention.plan import Geometry, RowKeys

MIN_TOKENS = 32
"""New tokens of a row from which the choice matters."""
_PROBE_TOKENS = 256
_TRIES = 3


def suits(row: RowKeys, geometry: Geometry) -> bool:
    """Whether the fused operator can do this row: a plain causal mask, no soft cap."""
    windowed = geometry.window is not None and row.num_keys > geometry.window
    return row.num_new >= MIN_TOKENS and row.tree is None and not windowed and not geometry.softcap


def fused(
    q: torch.Tensor,
    planes: tuple[torch.Tensor, torch.Tensor],
    row: RowKeys,
    geometry: Geometry,
    out: torch.Tensor,
) -> None:
    """q [tokens, heads, dim] over keys [kv_heads, num_keys, dim] -> out, as q."""
    keys, values = planes
    past = row.num_keys - row.num_new
    mask = None
    if past:
        mask = q.new_zeros(row.num_new, row.num_keys)
        mask[:, past:] = torch.full_like(mask[:, past:], float("-inf")).triu_(1)
    done = functional.scaled_dot_product_attention(
        q.transpose(0, 1)[None],
        keys[None],
        values[None],
        attn_mask=mask,
        is_causal=mask is None,
        scale=geometry.scale,
        enable_gqa=True,
    )
    out.copy_(done[0].transpose(0, 1))


@lru_cache(maxsize=8)
def is_faster(geometry: Geometry, blocked: Callable[..., None]) -> bool:
    """Time both forms on a prompt of 256 tokens."""
    heads, kv_heads, dim = geometry.num_heads, geometry.num_kv_heads, geometry.head_dim
    q = torch.ones(_PROBE_TOKENS, heads, dim, dtype=torch.bfloat16)
    plane = torch.ones(kv_heads, _PROBE_TOKENS, dim, dtype=torch.bfloat16)
    row = RowKeys(0, _PROBE_TOKENS, _PROBE_TOKENS, 0, None, None)
    out = torch.empty_like(q)
    ours = _seconds(lambda: blocked(q, (plane, plane), row, geometry, out, None))
    return _seconds(lambda: fused(q, (plane, plane), row, geometry, out)) < ours


def _seconds(call: Callable[[], None]) -> float:
    best = float("inf")
    for _ in range(_TRIES):
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
    return best
