"""Logits of a tile of the vocabulary as sampling sees them: penalties, bias, min_tokens."""

# ruff: noqa: ANN001, ANN201, PLR0913, PLR0917 - device code
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportOperatorIssue=false

from __future__ import annotations

import triton
from triton import language as tl

from rtp_kernels.sampling.fields import (
    FREE_TO_STOP,
    FREQUENCY,
    MOST_COUNTED,
    NO_TOKEN,
    PENALISED,
    PRESENCE,
    REPETITION,
    SPECIALS,
    TEMPERATURE,
    WORDS,
)


@triton.jit
def real(records, slot, FIELD: tl.constexpr):
    """A float32 field of a slot's"""
    return tl.load(records + slot * WORDS + FIELD).to(tl.float32, bitcast=True)


@triton.jit
def word(records, slot, FIELD: tl.constexpr):
    """An int32 field of a slot's"""
    return tl.load(records + slot * WORDS + FIELD)


@triton.jit
def unsigned(records, slot, FIELD: tl.constexpr):
    """A uint32 field of a slot's"""
    return tl.load(records + slot * WORDS + FIELD).to(tl.uint32, bitcast=True)


@triton.jit
def raw_tile(logits, row, row_stride, ids, VOCAB):
    """float32 like `ids`; -inf past the vocabulary, whatever the padding holds."""
    at = logits + row.to(tl.int64) * row_stride + ids
    return tl.load(at, mask=ids < VOCAB, other=-float("inf")).to(tl.float32)


@triton.jit
def penalised(x, ids, row, slot, records, counts, counts_stride, history, VOCAB,
              HISTORY: tl.constexpr):  # fmt: skip
    """Repetition, then presence and frequency; drafts before the row count as drawn."""
    held = tl.load(counts + slot.to(tl.int64) * counts_stride + ids, mask=ids < VOCAB, other=0).to(
        tl.int32
    )
    times = held & MOST_COUNTED
    seen = held != 0
    for j in tl.static_range(HISTORY):
        hit = ids == tl.load(history + row * HISTORY + j)
        times += hit.to(tl.int32)
        seen |= hit
    repetition = real(records, slot, REPETITION)
    repeated = tl.where(x > 0, tl.div_rn(x, repetition), x * repetition)
    x = tl.where(seen, repeated, x)
    frequency = real(records, slot, FREQUENCY)
    less = real(records, slot, PRESENCE) + frequency * times.to(tl.float32)
    return tl.where(times > 0, x - less, x)


@triton.jit
def special(x, ids, first, count, slot, position, records, special_ids, special_bias,
            TILE: tl.constexpr, CAPACITY: tl.constexpr):  # fmt: skip
    """Bias, then stop tokens while too few tokens are drawn."""
    each = tl.arange(0, CAPACITY)
    tokens = tl.load(special_ids + slot * CAPACITY + each, mask=each < count, other=NO_TOKEN)
    begin = tl.sum((tokens < first).to(tl.int32))
    end = tl.sum((tokens < first + TILE).to(tl.int32))
    free = position >= word(records, slot, FREE_TO_STOP)
    for j in range(begin, end):
        token = tl.load(special_ids + slot * CAPACITY + j)
        more = tl.load(special_bias + slot * CAPACITY + j)
        more = tl.where(free & (more == -float("inf")), 0.0, more)
        x = tl.where(ids == token, x + more, x)
    return x


@triton.jit
def processed(x, ids, first, row, slot, position, records, counts, counts_stride, history,
              special_ids, special_bias, VOCAB, TILE: tl.constexpr, CAPACITY: tl.constexpr,
              HISTORY: tl.constexpr):  # fmt: skip
    """Everything that changes logits before temperature, in the order of the definition."""
    if word(records, slot, PENALISED) != 0:
        x = penalised(x, ids, row, slot, records, counts, counts_stride, history, VOCAB, HISTORY)
    count = word(records, slot, SPECIALS)
    if count > 0:
        x = special(
            x, ids, first, count, slot, position, records, special_ids, special_bias,
            TILE, CAPACITY,
        )  # fmt: skip
    return x


@triton.jit
def drawn_tile(logits, row_stride, first, row, slot, position, records, counts, counts_stride,
               history, special_ids, special_bias, VOCAB, TILE: tl.constexpr,
               CAPACITY: tl.constexpr, HISTORY: tl.constexpr, PROCESSED: tl.constexpr,
               RAW: tl.constexpr):  # fmt: skip
    """float32 [TILE]: processed logits over temperature, or the logits as they are (RAW)."""
    ids = first + tl.arange(0, TILE)
    x = raw_tile(logits, row, row_stride, ids, VOCAB)
    if not RAW:
        if PROCESSED:
            x = processed(
                x, ids, first, row, slot, position, records, counts, counts_stride, history,
                special_ids, special_bias, VOCAB, TILE, CAPACITY, HISTORY,
            )  # fmt: skip
        temperature = real(records, slot, TEMPERATURE)
        if temperature > 0:
            x = tl.div_rn(x, temperature)
    return x
