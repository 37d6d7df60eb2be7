"""Rows with more tokens to choose from than a list holds, drawn by looking at them again.

The noisy best of all tokens is the draw if truncation keeps it. If not, truncation keeps no token
after it in descending order, so the next look is at those before it; the very first is always kept.
At top_p 0.9 nine rows in ten need one look.
"""

# ruff: noqa: ANN001, ANN201, PLR0913, PLR0915, PLR0917, C901 - device code
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportOperatorIssue=false

from __future__ import annotations

import triton
from triton import language as tl

from rtp_kernels.sampling import edges, noise, values
from rtp_kernels.sampling.fields import (
    CHOICE,
    LOG_MIN_P,
    NO_TOKEN,
    SEED_HIGH,
    SEED_LOW,
    TOP_K,
    TOP_P,
)
from rtp_kernels.sampling.stages import REACH, count_token, total_mass


@triton.jit(do_not_specialize_on_alignment=["slots", "positions", "history"])
def search(logits, row_stride, slots, positions, records, counts, counts_stride, history,
           special_ids, special_bias, best, mass, floors, token_ids, tiles, VOCAB,
           TILE: tl.constexpr, TILES: tl.constexpr, CAPACITY: tl.constexpr,
           HISTORY: tl.constexpr, PROCESSED: tl.constexpr, COMMITS: tl.constexpr):  # fmt: skip
    """Grid (rows,). Replaces token ids of -1; TILE is of this kernel, TILES of `survey`."""
    row = tl.program_id(0)
    if tl.load(token_ids + row) == -1:
        slot = tl.load(slots + row)
        position = tl.load(positions + row)
        peak, total = total_mass(best, mass, row, tiles, TILES)
        floor = tl.load(floors + row)
        top_k = values.word(records, slot, TOP_K)
        top_p = values.real(records, slot, TOP_P)
        if (top_k > 0) & (top_p < 1.0):
            edge = tl.full([], 0, tl.uint32)
            step = tl.full([], 0x80000000, tl.uint32)
            for _ in range(32):
                trial = edge | step
                count = 0
                weight = tl.full([], 0.0, tl.float64)
                for first in range(0, VOCAB, TILE):
                    x = values.drawn_tile(
                        logits, row_stride, first, row, slot, position, records, counts,
                        counts_stride, history, special_ids, special_bias, VOCAB, TILE, CAPACITY,
                        HISTORY, PROCESSED, False,
                    )  # fmt: skip
                    above = (x > -float("inf")) & (edges.ordered(x) >= trial)
                    count += tl.sum(above.to(tl.int32))
                    weight += tl.sum(tl.where(above, tl.exp(x - peak), 0.0)).to(tl.float64)
                if count >= top_k:
                    edge = trial
                    total = weight
                step = step >> 1
        # What is out of the noise's reach still counts in the sums, but is never drawn.
        floor = tl.maximum(floor, peak + tl.maximum(values.real(records, slot, LOG_MIN_P), -REACH))
        token = tl.full([], NO_TOKEN, tl.int32)
        edge_value = tl.full([], -float("inf"), tl.float32)
        edge_id = tl.full([], 0, tl.int32)
        searching = True
        while searching:
            noisy = tl.full([], -float("inf"), tl.float32)
            value = tl.full([], -float("inf"), tl.float32)
            token = tl.full([], NO_TOKEN, tl.int32)
            for first in range(0, VOCAB, TILE):
                ids = first + tl.arange(0, TILE)
                x = values.drawn_tile(
                    logits, row_stride, first, row, slot, position, records, counts, counts_stride,
                    history, special_ids, special_bias, VOCAB, TILE, CAPACITY, HISTORY, PROCESSED,
                    False,
                )  # fmt: skip
                left = (x > edge_value) | ((x == edge_value) & (ids < edge_id))
                left &= x >= floor
                y = x + noise.of_tile(
                    first,
                    values.unsigned(records, slot, SEED_LOW),
                    values.unsigned(records, slot, SEED_HIGH),
                    values.unsigned(records, slot, CHOICE),
                    position.to(tl.uint32),
                    TILE,
                )
                y = tl.where(left, y, -float("inf"))
                top, place = tl.max(y, 0, return_indices=True, return_indices_tie_break_left=True)
                if top > noisy:
                    noisy = top
                    token = first + place
                    value = tl.max(tl.where(ids == token, x, -float("inf")))
            above = 0
            before = tl.full([], 0.0, tl.float64)
            for first in range(0, VOCAB, TILE):
                ids = first + tl.arange(0, TILE)
                x = values.drawn_tile(
                    logits, row_stride, first, row, slot, position, records, counts, counts_stride,
                    history, special_ids, special_bias, VOCAB, TILE, CAPACITY, HISTORY, PROCESSED,
                    False,
                )  # fmt: skip
                above += tl.sum((x > value).to(tl.int32))
                earlier = (x > value) | ((x == value) & (ids < token))
                before += tl.sum(tl.where(earlier, tl.exp(x - peak), 0.0)).to(tl.float64)
            inside = (top_k == 0) | (above < top_k)
            inside &= (top_p >= 1.0) | (before < top_p.to(tl.float64) * total)
            searching = (inside == 0) & (token != NO_TOKEN)
            edge_value = value
            edge_id = token
        tl.store(token_ids + row, token)
        if COMMITS:
            count_token(slot, token, records, counts, counts_stride)
