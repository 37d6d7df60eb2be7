"""What attention kernels do with a tile: prepare heads, take keys in, find their row.

A head is kept as its two halves, each padded to a power of two (`HALF`), so that the rotation,
which pairs dimension d with d + head_dim / 2, moves nothing between threads.
"""

# ruff: noqa: ANN001, ANN201, PLR0913, PLR0917 - device code
# pyright: reportArgumentType=false, reportAssignmentType=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false
# pyright: reportPossiblyUnboundVariable=false

from __future__ import annotations

import triton
from triton import language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
NEVER = tl.constexpr(-1e30)
"""Score of a key that is not seen: finite, so that differences of two stay numbers."""


@triton.jit
def load_halves(heads, valid, DIM: tl.constexpr, HALF: tl.constexpr):
    """heads: pointers [n] to first elements; float32 [n, HALF] twice, 0 where not `valid`."""
    d = tl.arange(0, HALF)
    mask = valid[:, None] & (d < DIM // 2)[None, :]
    at = heads[:, None] + d[None, :]
    first = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(at + DIM // 2, mask=mask, other=0.0).to(tl.float32)
    return first, second


@triton.jit
def load_gain(gain, DIM: tl.constexpr, HALF: tl.constexpr, NORM: tl.constexpr):
    """The halves [HALF] of a norm's weight; ones without a norm."""
    d = tl.arange(0, HALF)
    first = tl.full([HALF], 1.0, tl.float32)
    second = tl.full([HALF], 1.0, tl.float32)
    if NORM:
        mask = d < DIM // 2
        first = tl.load(gain + d, mask=mask, other=0.0).to(tl.float32)
        second = tl.load(gain + DIM // 2 + d, mask=mask, other=0.0).to(tl.float32)
    return first, second


@triton.jit
def load_angles(
    rotary, positions, valid, dims, SECOND: tl.constexpr, DIM: tl.constexpr, ROTARY: tl.constexpr
):
    """cos and signed sin [n, HALF] for dimensions `dims` of one half, at `positions` [n].

    With a full rotation the sin of the first half is left unsigned: both halves share it.
    """
    if ROTARY == DIM:
        mask = valid[:, None] & (dims < DIM // 2)[None, :]
        at = rotary + positions[:, None].to(tl.int64) * ROTARY + dims[None, :]
        cos = tl.load(at, mask=mask, other=0.0)
        sin = tl.load(at + ROTARY // 2, mask=mask, other=0.0)
    else:
        d = dims + DIM // 2 if SECOND else dims
        turned = (dims < DIM // 2) & (d < ROTARY)
        angle = tl.where(d < ROTARY // 2, d, d - ROTARY // 2)
        mask = valid[:, None] & turned[None, :]
        at = rotary + positions[:, None].to(tl.int64) * ROTARY + angle[None, :]
        cos = tl.load(at, mask=mask, other=1.0)
        sin = tl.load(at + ROTARY // 2, mask=mask, other=0.0)
        sin = tl.where((d < ROTARY // 2)[None, :], -sin, sin)
    return cos, sin


@triton.jit
def load_partners(
    heads, gain, valid, dims, SECOND: tl.constexpr, DIM: tl.constexpr, ROTARY: tl.constexpr,
    NORM: tl.constexpr,
):  # fmt: skip
    """What a partial rotation adds to dimensions `dims` of one half: their partners, times gain."""
    d = dims + DIM // 2 if SECOND else dims
    partner = tl.where(d < ROTARY // 2, d + ROTARY // 2, d - ROTARY // 2)
    turned = (dims < DIM // 2) & (d < ROTARY)
    mask = valid[:, None] & turned[None, :]
    value = tl.load(heads[:, None] + partner[None, :], mask=mask, other=0.0).to(tl.float32)
    if NORM:
        value *= tl.load(gain + partner, mask=turned, other=0.0).to(tl.float32)[None, :]
    return value


@triton.jit
def prepare(
    heads, valid, gain, gain_1, gain_2, cos_1, sin_1, cos_2, sin_2, eps,
    DIM: tl.constexpr, HALF: tl.constexpr, ROTARY: tl.constexpr, NORM: tl.constexpr,
):  # fmt: skip
    """Load heads, normalise and rotate them: float32 halves [n, HALF]."""
    first, second = load_halves(heads, valid, DIM, HALF)
    if NORM:
        mean = (tl.sum(first * first, 1) + tl.sum(second * second, 1)) / DIM
        inverse = tl.rsqrt(mean + eps)[:, None]
        first = first * inverse * gain_1
        second = second * inverse * gain_2
    if ROTARY == DIM:
        turned_1 = first * cos_1 - second * sin_1
        turned_2 = second * cos_1 + first * sin_1
    elif ROTARY > 0:
        dims = tl.arange(0, HALF)
        partner_1 = load_partners(heads, gain, valid, dims, False, DIM, ROTARY, NORM)
        partner_2 = load_partners(heads, gain, valid, dims, True, DIM, ROTARY, NORM)
        if NORM:
            partner_1 *= inverse
            partner_2 *= inverse
        turned_1 = first * cos_1 + partner_1 * sin_1
        turned_2 = second * cos_2 + partner_2 * sin_2
    else:
        turned_1 = first
        turned_2 = second
    return turned_1, turned_2


@triton.jit
def in_base_2(score, scale, SOFTCAP: tl.constexpr):
    """Scores, scaled and limited, as exponents of 2."""
    if SOFTCAP > 0.0:
        limited = 2.0 * tl.sigmoid(score * (2.0 * scale / SOFTCAP)) - 1.0  # tanh(score / cap)
        exponent = limited * (SOFTCAP * LOG2E)
    else:
        exponent = score * (scale * LOG2E)
    return exponent


@triton.jit
def take_in(top, total, acc, score, values, seen, STRICT: tl.constexpr):
    """One tile of keys into the online softmax (Milakov and Gimelshein 2018), in base 2.

    `STRICT` is for tiles in which some query may see nothing.
    """
    score = tl.where(seen, score, NEVER)
    higher = tl.maximum(top, tl.max(score, 1))
    weight = tl.exp2(score - higher[:, None])
    if STRICT:
        weight = tl.where(seen, weight, 0.0)
    fade = tl.exp2(top - higher)
    total = total * fade + tl.sum(weight, 1)
    acc = tl.dot(weight.to(values.dtype), values, acc * fade[:, None])
    return higher, total, acc


@triton.jit
def log_sum(top, total):
    """Natural logarithm of the sum of exponentials; -inf for no keys."""
    return tl.where(total > 0.0, (top + tl.log2(tl.maximum(total, 1e-37))) * LN2, -float("inf"))


@triton.jit
def locate(starts, rows, number, GROUP: tl.constexpr, BLOCK: tl.constexpr):
    """Row of the `number`th block when each row's (tokens x GROUP) are cut in blocks of BLOCK.

    Returns (row, block in the row); row == rows when there are no more. Reading all starts is
    one load for up to 128 rows, and lets the grid depend on the number of tokens alone.
    """
    row = number * 0  # tensors, as what the loop adds
    before = number * 0
    base = number * 0
    for at in range(0, rows, 128):
        r = at + tl.arange(0, 128)
        there = r < rows
        begin = tl.load(starts + r, mask=there, other=0)
        end = tl.load(starts + r + 1, mask=there, other=0)
        blocks = ((end - begin) * GROUP + BLOCK - 1) // BLOCK
        ends = base + tl.cumsum(blocks, 0)
        passed = there & (ends <= number)
        row += tl.sum(passed.to(tl.int32), 0)
        before += tl.sum(tl.where(passed, blocks, 0), 0)
        base += tl.sum(blocks, 0)
    return row, number - before
