"""Rows with any number of new tokens: store their keys and values, then attend over the pages.

Two launches a layer. Both grids follow from the number of tokens and rows alone; a program finds
its row in `starts`. Attention cuts (tokens x heads of a group) in blocks, so that the query heads
of a KV head share the keys they load, and a row of one token fills as much of a block as it can.
"""

# ruff: noqa: ANN001, ANN201, PLR0913, PLR0915, PLR0917, PLR1714 - device code
# pyright: reportArgumentType=false, reportAssignmentType=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false
# pyright: reportPossiblyUnboundVariable=false

from __future__ import annotations

import torch
import triton
from torch import Tensor
from triton import language as tl

from rtp_kernels.gpu import pdl
from rtp_kernels.gpu.launch import launch
from rtp_kernels.gpu.sizes import ceil_div, next_power_of_2
from rtp_kernels.paged_attention.choice import RaggedChoice, choose_ragged
from rtp_kernels.paged_attention.heads import (
    NEVER,
    in_base_2,
    load_angles,
    load_gain,
    load_halves,
    locate,
    log_sum,
    prepare,
    take_in,
)
from rtp_kernels.paged_attention.plan import Geometry
from rtp_kernels.paged_attention.strides import plane_strides
from rtp_kernels.paged_attention.tables import StepTables

Norms = tuple[Tensor, Tensor, float] | None
_INTEGERS = ["block_tables", "lengths", "starts"]
"""Rows are taken from anywhere in a step's tables: their alignment must not cost a compilation."""
_STORED = [*_INTEGERS, "depths", "writes"]
_HEADS = 16
"""Heads a program of `store` turns: 16 halves of 128 bytes are one load of four warps."""


def store(
    qkv: Tensor,
    planes: tuple[Tensor, Tensor],
    tables: StepTables,
    geometry: Geometry,
    norms: Norms,
    max_new: int,
) -> None:
    """Normalise and rotate q and k IN PLACE in qkv; write K and V of writing rows to their pages.

    qkv [tokens, (heads + 2 * kv_heads) * head_dim] contiguous. Padding rows, tokens past the last
    row, and pages of rows that do not write stay as they are. `max_new` bounds the new tokens of
    a row (0: nothing to do).
    """
    tokens = qkv.shape[0]
    if not tokens or not max_new:
        return
    heads, kv_heads, dim = geometry.num_heads, geometry.num_kv_heads, geometry.head_dim
    q_norm, k_norm, eps = norms or (qkv, qkv, 0.0)
    launch(
        store_heads,
        (tokens, ceil_div(heads + 2 * kv_heads, _HEADS)),
        qkv,
        q_norm,
        k_norm,
        tables.rotary,
        *planes,
        tables.block_tables,
        tables.lengths,
        tables.starts,
        tables.lengths if tables.depths is None else tables.depths,
        tables.lengths if tables.writes is None else tables.writes.view(torch.int8),
        eps,
        tables.lengths.shape[0],
        tables.block_tables.stride(0),
        *plane_strides(planes, geometry.block_size),
        HEADS=heads,
        KV_HEADS=kv_heads,
        DIM=dim,
        HALF=next_power_of_2(dim) // 2,
        PAGE=geometry.block_size,
        ROTARY=tables.rotary.shape[1],
        CHUNK=_HEADS,
        NORM=norms is not None,
        DEPTHS=tables.depths is not None,
        WRITES=tables.writes is not None,
        warps=4,
    )


def ragged(
    qkv: Tensor,
    planes: tuple[Tensor, Tensor],
    tables: StepTables,
    geometry: Geometry,
    max_new: int,
    lse: Tensor | None = None,
    *,
    choice: RaggedChoice | None = None,
    out: Tensor | None = None,
    tokens: int | None = None,
) -> Tensor:
    """Causal attention of every row's new tokens to its keys, the new ones stored already.

    qkv as `store` leaves it -> [tokens, heads * head_dim]; lse as in `decode`. The last new token
    sees all keys of its row (bottom-right causal). Tokens past the last row get undefined values.
    Trees are refused with ValueError: `decode` takes those.

    When `tables` has some of the step's rows only, `starts` still count in all of qkv, `out` is
    where those rows' results go, and `tokens` bounds how many there are.
    """
    if tables.ancestors is not None:
        raise ValueError("tables.ancestors is given: ragged rows are chains, use decode for trees")
    heads, kv_heads, dim = geometry.num_heads, geometry.num_kv_heads, geometry.head_dim
    tokens = qkv.shape[0] if tokens is None else tokens
    out = qkv.new_empty(qkv.shape[0], heads * dim) if out is None else out
    if not tokens or not max_new:
        return out
    picked = choice or choose_ragged(geometry)
    blocks = ceil_div(tokens * geometry.group, picked.block) + len(tables.lengths)
    launch(
        attend_rows,
        (kv_heads, blocks),
        qkv,
        *planes,
        tables.block_tables,
        tables.lengths,
        tables.starts,
        out,
        out if lse is None else lse,
        geometry.scale,
        len(tables.lengths),
        tables.block_tables.stride(0),
        *plane_strides(planes, geometry.block_size),
        HEADS=heads,
        KV_HEADS=kv_heads,
        DIM=dim,
        WIDE=picked.width,
        PAGE=geometry.block_size,
        BLOCK=picked.block,
        TILE=picked.tile,
        STAGES=picked.stages,
        WINDOW=geometry.window or 0,
        SOFTCAP=geometry.softcap or 0.0,
        LSE=lse is not None,
        warps=picked.warps,
    )
    return out


@triton.jit(do_not_specialize=["rows", "table_stride"], do_not_specialize_on_alignment=_STORED)
def store_heads(
    qkv, q_norm, k_norm, rotary, k_plane, v_plane, block_tables, lengths, starts, depths, writes,
    eps, rows, table_stride, page_stride, token_stride, head_stride,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, DIM: tl.constexpr, HALF: tl.constexpr,
    PAGE: tl.constexpr, ROTARY: tl.constexpr, CHUNK: tl.constexpr, NORM: tl.constexpr,
    DEPTHS: tl.constexpr, WRITES: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Grid (tokens, chunks of CHUNK heads of q, k and v)."""
    QKV: tl.constexpr = (HEADS + 2 * KV_HEADS) * DIM
    pdl.release(PDL)
    number = tl.program_id(0)
    head = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    row, token = locate(starts, rows, number, 1, 1)
    there = row < rows
    length = tl.load(lengths + row, mask=there, other=0)
    live = length > 0
    count = tl.load(starts + row + 1, mask=there, other=0) - tl.load(
        starts + row, mask=there, other=0
    )
    past = length - count
    slot = past + token
    position = slot
    if DEPTHS:
        position = past + tl.load(depths + number, mask=live, other=0)
    keep = live
    if WRITES:
        keep = keep & (tl.load(writes + row, mask=there, other=0) != 0)
    # Scalar flags become bounds: Triton's interpreter refuses them in masks.
    is_k = (head >= HEADS) & (head < HEADS + KV_HEADS)
    valid = head < tl.where(live, HEADS + 2 * KV_HEADS, 0)
    in_place = head < tl.where(live, HEADS + KV_HEADS, 0)
    to_k = (head >= HEADS) & (head < tl.where(keep, HEADS + KV_HEADS, 0))
    to_v = (head >= HEADS + KV_HEADS) & (head < tl.where(keep, HEADS + 2 * KV_HEADS, 0))
    page = tl.load(
        block_tables + tl.cast(row, tl.int64) * table_stride + slot // PAGE, mask=keep, other=0
    ).to(tl.int64)
    dims = tl.arange(0, HALF)
    one = tl.arange(0, 1)
    here = one < tl.where(live, 1, 0)
    cos_1, sin_1 = load_angles(rotary, position + one, here, dims, False, DIM, ROTARY)
    cos_2, sin_2 = load_angles(rotary, position + one, here, dims, True, DIM, ROTARY)
    q_gain_1, q_gain_2 = load_gain(q_norm, DIM, HALF, NORM)
    k_gain_1, k_gain_2 = load_gain(k_norm, DIM, HALF, NORM)
    pdl.wait(PDL)

    heads = qkv + number.to(tl.int64) * QKV + head * DIM
    turned_1, turned_2, plain_1, plain_2 = turn_mixed(
        heads, valid, is_k, q_norm, k_norm, q_gain_1, q_gain_2, k_gain_1, k_gain_2,
        cos_1, sin_1, cos_2, sin_2, eps, DIM, HALF, ROTARY, NORM,
    )  # fmt: skip
    # In place: no thread stores before all have loaded, partners of a rotation included.
    tl.debug_barrier()
    compute = qkv.dtype.element_ty
    stored = k_plane.dtype.element_ty
    half = (dims < DIM // 2)[None, :]
    at = heads[:, None] + dims[None, :]
    turned = in_place[:, None] & half
    tl.store(at, turned_1.to(compute), mask=turned)
    tl.store(at + DIM // 2, turned_2.to(compute), mask=turned)
    base = page * page_stride + (slot % PAGE) * token_stride
    k_at = k_plane + base + (head - HEADS).to(tl.int64)[:, None] * head_stride + dims[None, :]
    k_mask = to_k[:, None] & half
    tl.store(k_at, turned_1.to(compute).to(stored), mask=k_mask)
    tl.store(k_at + DIM // 2, turned_2.to(compute).to(stored), mask=k_mask)
    v_head = (head - HEADS - KV_HEADS).to(tl.int64)[:, None]
    v_at = v_plane + base + v_head * head_stride + dims[None, :]
    v_mask = to_v[:, None] & half
    tl.store(v_at, plain_1.to(stored), mask=v_mask)
    tl.store(v_at + DIM // 2, plain_2.to(stored), mask=v_mask)


@triton.jit
def turn_mixed(
    heads, valid, is_k, q_norm, k_norm, q_gain_1, q_gain_2, k_gain_1, k_gain_2,
    cos_1, sin_1, cos_2, sin_2, eps,
    DIM: tl.constexpr, HALF: tl.constexpr, ROTARY: tl.constexpr, NORM: tl.constexpr,
):  # fmt: skip
    """As `prepare`, for heads of q and k side by side; and the halves as they were."""
    gain_1 = tl.where(is_k[:, None], k_gain_1[None, :], q_gain_1[None, :])
    gain_2 = tl.where(is_k[:, None], k_gain_2[None, :], q_gain_2[None, :])
    plain_1, plain_2 = load_halves(heads, valid, DIM, HALF)
    if ROTARY == DIM or ROTARY == 0:
        turned_1, turned_2 = prepare(
            heads, valid, q_norm, gain_1, gain_2, cos_1, sin_1, cos_2, sin_2, eps,
            DIM, HALF, ROTARY, NORM,
        )  # fmt: skip
    else:
        of_q_1, of_q_2 = prepare(
            heads, valid, q_norm, gain_1, gain_2, cos_1, sin_1, cos_2, sin_2, eps,
            DIM, HALF, ROTARY, NORM,
        )  # fmt: skip
        of_k_1, of_k_2 = prepare(
            heads, valid, k_norm, gain_1, gain_2, cos_1, sin_1, cos_2, sin_2, eps,
            DIM, HALF, ROTARY, NORM,
        )  # fmt: skip
        turned_1 = tl.where(is_k[:, None], of_k_1, of_q_1)
        turned_2 = tl.where(is_k[:, None], of_k_2, of_q_2)
    return turned_1, turned_2, plain_1, plain_2


@triton.jit(do_not_specialize=["rows", "table_stride"], do_not_specialize_on_alignment=_INTEGERS)
def attend_rows(
    qkv, k_plane, v_plane, block_tables, lengths, starts, out, lse,
    scale, rows, table_stride, page_stride, token_stride, head_stride,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, DIM: tl.constexpr, WIDE: tl.constexpr,
    PAGE: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr, STAGES: tl.constexpr,
    WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, LSE: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Grid (kv_heads, blocks of query rows of all rows). The longest blocks of a row go first."""
    GROUP: tl.constexpr = HEADS // KV_HEADS
    QKV: tl.constexpr = (HEADS + 2 * KV_HEADS) * DIM
    pdl.release(PDL)
    head = tl.program_id(0)
    row, block = locate(starts, rows, tl.program_id(1), GROUP, BLOCK)
    pdl.wait(PDL)
    if row < rows:
        start = tl.load(starts + row)
        count = tl.load(starts + row + 1) - start
        length = tl.load(lengths + row)
        live = length > 0
        past = length - count
        block = tl.cdiv(count * GROUP, BLOCK) - 1 - block
        query = block * BLOCK + tl.arange(0, BLOCK)
        used = query < count * GROUP
        token = query // GROUP
        q_head = head * GROUP + query % GROUP
        wide = tl.arange(0, WIDE)
        q_mask = used[:, None] & (wide < DIM)[None, :]
        q_at = (start + token).to(tl.int64) * QKV + q_head * DIM
        q = tl.load(qkv + q_at[:, None] + wide[None, :], mask=q_mask, other=0.0)
        position = past + token
        first = past + block * BLOCK // GROUP
        last = past + tl.minimum((block * BLOCK + BLOCK - 1) // GROUP, count - 1)
        end = tl.where(live, last + 1, 0)
        begin = tl.maximum(first + 1 - WINDOW, 0) if WINDOW else 0
        # Keys below `clear` are seen by all queries of the block: no mask.
        clear = 0 if WINDOW else tl.where(live, (first + 1) // TILE * TILE, 0)
        table = block_tables + tl.cast(row, tl.int64) * table_stride
        k_head = k_plane + head.to(tl.int64) * head_stride
        v_head = v_plane + head.to(tl.int64) * head_stride
        top = tl.full([BLOCK], NEVER, tl.float32)
        total = tl.zeros([BLOCK], tl.float32)
        acc = tl.zeros([BLOCK, WIDE], tl.float32)
        if WINDOW == 0:
            for at in tl.range(0, clear, TILE, num_stages=STAGES):
                keys = at + tl.arange(0, TILE)
                page = tl.load(table + keys // PAGE).to(tl.int64)
                base = page * page_stride + (keys % PAGE) * token_stride
                if WIDE == DIM:
                    k = tl.load(k_head + base[None, :] + wide[:, None])
                    v = tl.load(v_head + base[:, None] + wide[None, :])
                else:
                    inside = wide < DIM
                    k = tl.load(
                        k_head + base[None, :] + wide[:, None], mask=inside[:, None], other=0.0
                    )
                    v = tl.load(
                        v_head + base[:, None] + wide[None, :], mask=inside[None, :], other=0.0
                    )
                score = in_base_2(tl.dot(q, k.to(q.dtype)), scale, SOFTCAP)
                higher = tl.maximum(top, tl.max(score, 1))
                weight = tl.exp2(score - higher[:, None])
                fade = tl.exp2(top - higher)
                total = total * fade + tl.sum(weight, 1)
                acc = tl.dot(weight.to(q.dtype), v.to(q.dtype), acc * fade[:, None])
                top = higher
        for at in tl.range(
            begin if WINDOW else clear, end, TILE, num_stages=STAGES if WINDOW else 1
        ):
            keys = at + tl.arange(0, TILE)
            there = keys < end
            page = tl.load(table + keys // PAGE, mask=there, other=0).to(tl.int64)
            base = page * page_stride + (keys % PAGE) * token_stride
            k_mask = there[None, :] & (wide < DIM)[:, None]
            k = tl.load(k_head + base[None, :] + wide[:, None], mask=k_mask, other=0.0)
            v_mask = there[:, None] & (wide < DIM)[None, :]
            v = tl.load(v_head + base[:, None] + wide[None, :], mask=v_mask, other=0.0)
            seen = (keys[None, :] <= position[:, None]) & there[None, :]
            if WINDOW:
                seen = seen & (position[:, None] - keys[None, :] < WINDOW)
            score = in_base_2(tl.dot(q, k.to(q.dtype)), scale, SOFTCAP)
            top, total, acc = take_in(top, total, acc, score, v.to(q.dtype), seen, True)
        value = tl.where((total > 0.0)[:, None], acc / total[:, None], 0.0)
        out_row = (start + token).to(tl.int64) * HEADS + q_head
        out_at = out + out_row[:, None] * DIM + wide[None, :]
        tl.store(out_at, value.to(out.dtype.element_ty), mask=q_mask)
        if LSE:
            tl.store(lse + out_row, log_sum(top, total), mask=used)
