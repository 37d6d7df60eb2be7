"""Log probabilities of drawn tokens and of the best ones, after `survey` and `gather` (RAW)."""

# ruff: noqa: ANN001, ANN201, PLR0913, PLR0917 - device code
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportOperatorIssue=false

from __future__ import annotations

import triton
from triton import language as tl

from rtp_kernels.sampling import values
from rtp_kernels.sampling.fields import NO_TOKEN
from rtp_kernels.sampling.stages import total_mass


@triton.jit
def follows(x, ids, value, token):
    """Whether tokens come after one in descending order, lowest ids first among equals."""
    return (x < value) | ((x == value) & (ids > token))


@triton.jit
def next_in_row(logits, row_stride, row, value, token, VOCAB, TILE: tl.constexpr):
    """The best token after one, from the logits themselves."""
    top = tl.full([], -float("inf"), tl.float32)
    top_id = tl.full([], NO_TOKEN, tl.int32)
    for first in range(0, VOCAB, TILE):
        ids = first + tl.arange(0, TILE)
        x = values.raw_tile(logits, row, row_stride, ids, VOCAB)
        x = tl.where(follows(x, ids, value, token), x, -float("inf"))
        best, place = tl.max(x, 0, return_indices=True, return_indices_tie_break_left=True)
        if best > top:
            top = best
            top_id = first + place
    return top, top_id


@triton.jit(do_not_specialize_on_alignment=["slots"])
def rank(logits, row_stride, slots, best, mass, found, kept, kept_id, token_ids, chosen, top_ids,
         top_values, tiles, VOCAB, TILE: tl.constexpr, TILES: tl.constexpr, ROOM: tl.constexpr,
         WANTED: tl.constexpr):  # fmt: skip
    """Grid (rows,). chosen float32 [rows]; top_ids int32, top_values float32 [rows, WANTED].

    Where a row has fewer finite logits, ids are -1 and values -inf.
    """
    row = tl.program_id(0)
    if tl.load(slots + row) >= 0:
        peak, total = total_mass(best, mass, row, tiles, TILES)
        shift = peak + tl.log(total.to(tl.float32))
        token = tl.load(token_ids + row)
        raw = tl.load(logits + row.to(tl.int64) * row_stride + token).to(tl.float32)
        tl.store(chosen + row, raw - shift)
        if WANTED > 0:
            count = tl.load(found + row)
            each = tl.arange(0, ROOM)
            listed = each < tl.minimum(count, ROOM)
            x = tl.load(kept + row * ROOM + each, mask=listed, other=-float("inf"))
            ids = tl.load(kept_id + row * ROOM + each, mask=listed, other=NO_TOKEN)
            value = tl.full([], float("inf"), tl.float32)
            token = tl.full([], -1, tl.int32)
            for j in range(WANTED):
                if count <= ROOM:
                    left = tl.where(follows(x, ids, value, token), x, -float("inf"))
                    value = tl.max(left)
                    token = tl.min(tl.where((left == value) & listed, ids, NO_TOKEN))
                else:
                    value, token = next_in_row(logits, row_stride, row, value, token, VOCAB, TILE)
                some = value > -float("inf")
                tl.store(top_ids + row * WANTED + j, tl.where(some, token, -1))
                tl.store(top_values + row * WANTED + j, value - shift)
