"""Decoding and verification over pages: one kernel normalises, rotates, stores and attends.

Every row has the same few new tokens. A program takes one part (split) of the keys of one KV
head of one row, for all query heads of that KV head and all new tokens; the program that is last
to finish joins the parts (flash decoding, Dao et al. 2023), so that no second kernel runs. The
last split starts its softmax from the new tokens' keys, which it computes itself: nothing reads
what this kernel writes. The range of a split follows from the length on the device, so one
captured launch serves every length.
"""

# ruff: noqa: ANN001, ANN201, C901, PLR0912, PLR0913, PLR0915, PLR0917 - device code
# pyright: reportArgumentType=false, reportAssignmentType=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false
# pyright: reportPossiblyUnboundVariable=false

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
from torch import Tensor
from triton import language as tl

from rtp_kernels.gpu import pdl
from rtp_kernels.gpu.launch import launch
from rtp_kernels.paged_attention.choice import DecodeChoice, choose
from rtp_kernels.paged_attention.heads import (
    NEVER,
    in_base_2,
    load_angles,
    load_gain,
    log_sum,
    prepare,
    take_in,
)
from rtp_kernels.paged_attention.plan import Geometry
from rtp_kernels.paged_attention.strides import plane_strides
from rtp_kernels.paged_attention.tables import MAX_NEW_TOKENS, Scratch, StepTables

Norms = tuple[Tensor, Tensor, float] | None


def decode(
    qkv: Tensor,
    planes: tuple[Tensor, Tensor],
    tables: StepTables,
    geometry: Geometry,
    norms: Norms,
    new_tokens: int,
    scratch: Scratch,
    lse: Tensor | None = None,
    *,
    context: int,
    choice: DecodeChoice | None = None,
) -> Tensor:
    """Attention of `new_tokens` (1 … 16) new tokens in every row; stores their keys and values.

    qkv [rows * new_tokens, (heads + 2 * kv_heads) * head_dim] contiguous, planes two
    [kv_heads, slots, head_dim] -> [rows * new_tokens, heads * head_dim]. lse float32
    [tokens, heads], if given, receives the log-sum-exp. `context` bounds the lengths the launch
    is good for in speed, not in result; `scratch` must be allocated for it. `choice` overrides
    what the table says. Raises ValueError for new_tokens out of range or a small scratch.
    """
    rows = tables.lengths.shape[0]
    if not 1 <= new_tokens <= MAX_NEW_TOKENS:
        raise ValueError(f"new_tokens is {new_tokens}: decode takes 1 to {MAX_NEW_TOKENS} a row")
    out = qkv.new_empty(rows * new_tokens, geometry.num_heads * geometry.head_dim)
    if not rows:
        return out
    picked = choice or choose(geometry, rows, new_tokens, context)
    groups = geometry.num_kv_heads * picked.tiles
    if picked.splits > 1:
        _check(scratch, rows * groups, picked)
    q_norm, k_norm, eps = norms or (qkv, qkv, 0.0)
    launch(
        decode_rows,
        (picked.splits, groups, rows),
        qkv,
        q_norm,
        k_norm,
        tables.rotary,
        *planes,
        tables.block_tables,
        tables.lengths,
        *_optional(tables),
        out,
        out if lse is None else lse,
        scratch.partial,
        scratch.stats,
        scratch.counters,
        geometry.scale,
        eps,
        tables.block_tables.stride(0),
        *plane_strides(planes, geometry.block_size),
        NEW=new_tokens,
        NORM=norms is not None,
        LSE=lse is not None,
        **_constants(tables, geometry, picked),
    )
    return out


def _constants(tables: StepTables, geometry: Geometry, picked: DecodeChoice) -> dict[str, Any]:
    return {
        "ROTARY": tables.rotary.shape[1],
        "TREE": tables.ancestors is not None,
        "WRITES": tables.writes is not None,
        **_cut(geometry, picked),
    }


@functools.lru_cache(maxsize=256)
def _cut(geometry: Geometry, picked: DecodeChoice) -> dict[str, Any]:
    return {
        "HEADS": geometry.num_heads,
        "KV_HEADS": geometry.num_kv_heads,
        "DIM": geometry.head_dim,
        "HALF": picked.width // 2,
        "PAGE": geometry.block_size,
        "ROWS": picked.query_rows,
        "TILES": picked.tiles,
        "TILE": picked.tile,
        "SPLITS": picked.splits,
        "STAGES": picked.stages,
        "WINDOW": geometry.window or 0,
        "SOFTCAP": geometry.softcap or 0.0,
        "EARLY": picked.early,
        "warps": picked.warps,
    }


def _optional(tables: StepTables) -> tuple[Tensor, Tensor, Tensor]:
    """depths, ancestors and writes; for one that is not given, a tensor that is not read."""
    unread, writes = tables.lengths, tables.writes
    flags = unread if writes is None else writes.view(torch.int8)
    if tables.ancestors is None:
        return unread, unread, flags
    if tables.depths is None:
        raise ValueError("tables.ancestors is given without depths: a tree needs both")
    return tables.depths, tables.ancestors, flags


def _check(scratch: Scratch, programs: int, picked: DecodeChoice) -> None:
    rows = programs * picked.splits * picked.query_rows
    for name, found, wanted in (
        ("partial", scratch.partial, rows * picked.width),
        ("stats", scratch.stats, rows * 2),
        ("counters", scratch.counters, programs),
    ):
        if found.numel() < wanted:
            raise ValueError(
                f"scratch.{name} has {found.numel()} elements, this step needs {wanted}: "
                "allocate it for the largest step with Scratch.for_steps"
            )


@triton.jit
def load_keys(
    k_plane, v_plane, table, keys, there, page_stride, token_stride,
    DIM: tl.constexpr, HALF: tl.constexpr, PAGE: tl.constexpr,
):  # fmt: skip
    """Tile of past keys: K^T in halves [HALF, n] twice, V [n, 2 * HALF]; 0 where not `there`."""
    d = tl.arange(0, HALF)
    wide = tl.arange(0, 2 * HALF)
    page = tl.load(table + keys // PAGE, mask=there, other=0).to(tl.int64)
    at = page * page_stride + (keys % PAGE) * token_stride
    k_mask = there[None, :]
    v_mask = there[:, None]
    if 2 * HALF != DIM:
        k_mask = k_mask & (d < DIM // 2)[:, None]
        v_mask = v_mask & (wide < DIM)[None, :]
    first = tl.load(k_plane + at[None, :] + d[:, None], mask=k_mask, other=0.0)
    second = tl.load(k_plane + DIM // 2 + at[None, :] + d[:, None], mask=k_mask, other=0.0)
    values = tl.load(v_plane + at[:, None] + wide[None, :], mask=v_mask, other=0.0)
    return first, second, values


@triton.jit
def join_rows(
    partial, stats, out_at, out_mask, live, program,
    ROWS: tl.constexpr, WIDE: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """Parts of all query rows at once, a few splits at a time; returns maximum and sum [ROWS]."""
    r = tl.arange(0, ROWS)
    d = tl.arange(0, WIDE)
    part = tl.arange(0, SPLITS)
    at = (program * SPLITS + part[:, None]) * ROWS + r[None, :]
    tops = tl.load(stats + at * 2, cache_modifier=".cg")
    totals = tl.load(stats + at * 2 + 1, cache_modifier=".cg")
    top = tl.max(tops, 0)
    total = tl.sum(totals * tl.exp2(tops - top[None, :]), 0)
    joined = tl.zeros([ROWS, WIDE], tl.float32)
    UNROLL: tl.constexpr = 8 if SPLITS > 8 else SPLITS
    for first in range(0, SPLITS, UNROLL):
        for i in tl.static_range(UNROLL):
            row = (program * SPLITS + first + i) * ROWS + r
            weight = tl.exp2(tl.load(stats + row * 2, cache_modifier=".cg") - top)
            part_at = partial + row[:, None] * WIDE + d[None, :]
            values = tl.load(part_at, mask=out_mask, other=0.0, cache_modifier=".cg")
            joined += values * weight[:, None]
    value = tl.where(live, joined / total[:, None], 0.0)
    tl.store(out_at, value.to(out_at.dtype.element_ty), mask=out_mask)
    return top, total


@triton.jit
def join_heads(
    partial, stats, out_head, lse_head, live, program,
    GROUP: tl.constexpr, DIM: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
    SPLITS: tl.constexpr, LSE: tl.constexpr,
):  # fmt: skip
    """Parts of one new token: all splits of a query head at once, one head after the other."""
    d = tl.arange(0, WIDE)
    part = tl.arange(0, SPLITS)
    for member in tl.static_range(GROUP):
        at = (program * SPLITS + part) * ROWS + member
        tops = tl.load(stats + at * 2, cache_modifier=".cg")
        totals = tl.load(stats + at * 2 + 1, cache_modifier=".cg")
        values = tl.load(partial + at[:, None] * WIDE + d[None, :], cache_modifier=".cg")
        top = tl.max(tops, 0)
        weight = tl.exp2(tops - top)
        total = tl.sum(totals * weight, 0)
        value = tl.where(live, tl.sum(values * weight[:, None], 0) / total, 0.0)
        out_at = out_head + member * DIM + d
        tl.store(out_at, value.to(out_head.dtype.element_ty), mask=d < DIM)
        if LSE:
            tl.store(lse_head + member, log_sum(top, tl.where(live, total, 0.0)))


@triton.jit(do_not_specialize=["table_stride"])
def decode_rows(
    qkv, q_norm, k_norm, rotary, k_plane, v_plane, block_tables, lengths, depths, ancestors, writes,
    out, lse, partial, stats, counters,
    scale, eps, table_stride, page_stride, token_stride, head_stride,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, DIM: tl.constexpr, HALF: tl.constexpr,
    PAGE: tl.constexpr, ROTARY: tl.constexpr, NEW: tl.constexpr, ROWS: tl.constexpr,
    TILES: tl.constexpr, TILE: tl.constexpr, SPLITS: tl.constexpr, STAGES: tl.constexpr,
    WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, NORM: tl.constexpr, TREE: tl.constexpr,
    WRITES: tl.constexpr, LSE: tl.constexpr, EARLY: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Grid (splits, kv_heads * TILES, rows). Tile t holds query rows t * ROWS … of the head:
    query row = new token * group + head within the group."""
    GROUP: tl.constexpr = HEADS // KV_HEADS
    QKV: tl.constexpr = (HEADS + 2 * KV_HEADS) * DIM
    WIDE: tl.constexpr = 2 * HALF
    KEYS: tl.constexpr = 1 if NEW == 1 else 16  # new keys, padded to what a product takes
    TURNS: tl.constexpr = NEW == 1  # all queries at one position: one row of angles
    compute = qkv.dtype.element_ty
    stored = k_plane.dtype.element_ty
    pdl.release(PDL)
    split = tl.program_id(0)
    head = tl.program_id(1) // TILES
    tile = tl.program_id(1) % TILES
    row = tl.program_id(2)
    query = tile * ROWS + tl.arange(0, ROWS)
    used = query < NEW * GROUP
    token = query // GROUP
    member = query % GROUP
    dims = tl.arange(0, HALF)
    wide = tl.arange(0, WIDE)

    # Before the wait: weights, tables, and keys of earlier steps.
    q_gain_1, q_gain_2 = load_gain(q_norm, DIM, HALF, NORM)
    length = tl.load(lengths + row)
    live = length > 0
    past = tl.maximum(length - NEW, 0)
    earliest = tl.maximum(past + 1 - WINDOW, 0) if WINDOW else 0
    share = tl.cdiv(tl.cdiv(past - earliest, SPLITS), TILE) * TILE
    begin = earliest + split * share
    end = tl.minimum(begin + share, past)
    table = block_tables + row.to(tl.int64) * table_stride
    k_head = k_plane + head.to(tl.int64) * head_stride
    v_head = v_plane + head.to(tl.int64) * head_stride
    if TURNS:
        one = tl.arange(0, 1)
        position = past + one
        positioned = one == 0
    else:
        position = past + token
        positioned = used
        if TREE:
            position = past + tl.load(depths + row * NEW + token, mask=used, other=0)
    cos_1, sin_1 = load_angles(rotary, position, positioned, dims, False, DIM, ROTARY)
    cos_2, sin_2 = load_angles(rotary, position, positioned, dims, True, DIM, ROTARY)
    if EARLY:
        early = begin + tl.arange(0, TILE)
        early_there = early < end
        early_1, early_2, early_v = load_keys(
            k_head, v_head, table, early, early_there, page_stride, token_stride, DIM, HALF, PAGE
        )
    pdl.wait(PDL)

    tokens = qkv + row.to(tl.int64) * (NEW * QKV)
    q_heads = tokens + token * QKV + (head * GROUP + member) * DIM
    q_1, q_2 = prepare(
        q_heads, used, q_norm, q_gain_1[None, :], q_gain_2[None, :], cos_1, sin_1, cos_2, sin_2,
        eps, DIM, HALF, ROTARY, NORM,
    )  # fmt: skip
    q_1 = q_1.to(compute)
    q_2 = q_2.to(compute)
    top = tl.full([ROWS], NEVER, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, WIDE], tl.float32)

    if split == SPLITS - 1:  # the new tokens: into their page, and first into the softmax
        new = tl.arange(0, KEYS)
        is_new = new < NEW
        k_gain_1, k_gain_2 = load_gain(k_norm, DIM, HALF, NORM)
        if TURNS:
            k_heads = tokens + new * QKV + (HEADS + head) * DIM
            k_1, k_2 = prepare(
                k_heads, is_new, k_norm, k_gain_1[None, :], k_gain_2[None, :],
                cos_1, sin_1, cos_2, sin_2, eps, DIM, HALF, ROTARY, NORM,
            )  # fmt: skip
        else:
            key_position = past + new
            if TREE:
                key_position = past + tl.load(depths + row * NEW + new, mask=is_new, other=0)
            k_cos_1, k_sin_1 = load_angles(rotary, key_position, is_new, dims, False, DIM, ROTARY)
            k_cos_2, k_sin_2 = load_angles(rotary, key_position, is_new, dims, True, DIM, ROTARY)
            k_heads = tokens + new * QKV + (HEADS + head) * DIM
            k_1, k_2 = prepare(
                k_heads, is_new, k_norm, k_gain_1[None, :], k_gain_2[None, :],
                k_cos_1, k_sin_1, k_cos_2, k_sin_2, eps, DIM, HALF, ROTARY, NORM,
            )  # fmt: skip
        k_1 = k_1.to(stored)
        k_2 = k_2.to(stored)
        v_heads = tokens + new * QKV + (HEADS + KV_HEADS + head) * DIM
        v_mask = is_new[:, None] & (wide < DIM)[None, :]
        v_new = tl.load(v_heads[:, None] + wide[None, :], mask=v_mask, other=0.0).to(stored)
        # (A scalar flag in a mask is refused by Triton's interpreter: it becomes a bound.)
        to_keep = tl.where(live & (tile == 0), NEW, 0)
        if WRITES:
            to_keep = tl.where(tl.load(writes + row) != 0, to_keep, 0)
        kept = new < to_keep
        slot = past + new
        page = tl.load(table + slot // PAGE, mask=kept, other=0).to(tl.int64)
        at = page * page_stride + (slot % PAGE) * token_stride
        k_mask = kept[:, None] & (dims < DIM // 2)[None, :]
        tl.store(k_head + at[:, None] + dims[None, :], k_1, mask=k_mask)
        tl.store(k_head + at[:, None] + DIM // 2 + dims[None, :], k_2, mask=k_mask)
        v_mask = kept[:, None] & (wide < DIM)[None, :]
        tl.store(v_head + at[:, None] + wide[None, :], v_new, mask=v_mask)
        if TURNS:
            score = tl.sum(q_1.to(tl.float32) * k_1.to(tl.float32), 1)
            score += tl.sum(q_2.to(tl.float32) * k_2.to(tl.float32), 1)
            top = in_base_2(score, scale, SOFTCAP)
            total = tl.full([ROWS], 1.0, tl.float32)
            acc = tl.zeros([ROWS, WIDE], tl.float32) + v_new.to(tl.float32)
        else:
            score = tl.dot(q_1, tl.trans(k_1.to(compute)))
            score = tl.dot(q_2, tl.trans(k_2.to(compute)), score)
            if TREE:
                mask = tl.load(ancestors + row * NEW + token, mask=used, other=1)
                seen = ((mask[:, None] >> new[None, :]) & 1) == 1
            else:
                seen = new[None, :] <= token[:, None]
            seen = seen & is_new[None, :]
            if WINDOW:
                seen = seen & (position[:, None] - key_position[None, :] < WINDOW)
            top, total, acc = take_in(
                top, total, acc, in_base_2(score, scale, SOFTCAP), v_new.to(compute), seen, True
            )
    # With more than one query a window ends at another key for each of them.
    SLANTED: tl.constexpr = (WINDOW > 0) and (NEW > 1)
    if EARLY:
        score = tl.dot(q_1, early_1.to(compute))
        score = tl.dot(q_2, early_2.to(compute), score)
        seen = early_there[None, :]
        if SLANTED:
            seen = seen & (position[:, None] - early[None, :] < WINDOW)
        top, total, acc = take_in(
            top, total, acc, in_base_2(score, scale, SOFTCAP), early_v.to(compute), seen, True
        )
    for start in tl.range(begin + (TILE if EARLY else 0), end, TILE, num_stages=STAGES):
        keys = start + tl.arange(0, TILE)
        there = keys < end
        k_1t, k_2t, values = load_keys(
            k_head, v_head, table, keys, there, page_stride, token_stride, DIM, HALF, PAGE
        )
        score = tl.dot(q_1, k_1t.to(compute))
        score = tl.dot(q_2, k_2t.to(compute), score)
        seen = there[None, :]
        if SLANTED:
            seen = seen & (position[:, None] - keys[None, :] < WINDOW)
        top, total, acc = take_in(
            top, total, acc, in_base_2(score, scale, SOFTCAP), values.to(compute), seen, SLANTED
        )

    first_out = (row.to(tl.int64) * NEW * HEADS + head * GROUP) * DIM
    out_row = row.to(tl.int64) * (NEW * HEADS) + token * HEADS + head * GROUP + member
    out_at = out + out_row[:, None] * DIM + wide[None, :]
    out_mask = used[:, None] & (wide < DIM)[None, :]
    if SPLITS == 1:
        value = tl.where(live, acc / total[:, None], 0.0)
        tl.store(out_at, value.to(compute), mask=out_mask)
        if LSE:
            tl.store(lse + out_row, log_sum(top, tl.where(live, total, 0.0)), mask=used)
    else:
        program = (row * KV_HEADS + head) * TILES + tile
        at_row = (program * SPLITS + split) * ROWS + tl.arange(0, ROWS)
        tl.store(partial + at_row[:, None] * WIDE + wide[None, :], acc, mask=used[:, None])
        tl.store(stats + at_row * 2, top)
        tl.store(stats + at_row * 2 + 1, total)
        tl.debug_barrier()
        done = tl.atomic_add(counters + program, 1, sem="acq_rel", scope="gpu")
        if done == SPLITS - 1:
            tl.debug_barrier()
            if NEW == 1 and GROUP <= 8:
                join_heads(
                    partial, stats, out + first_out, lse + row * HEADS + head * GROUP, live,
                    program, GROUP, DIM, ROWS, WIDE, SPLITS, LSE,
                )  # fmt: skip
            else:
                top, total = join_rows(
                    partial, stats, out_at, out_mask, live, program, ROWS, WIDE, SPLITS
                )
                if LSE:
                    tl.store(lse + out_row, log_sum(top, tl.where(live, total, 0.0)), mask=used)
            tl.store(counters + program, 0)
