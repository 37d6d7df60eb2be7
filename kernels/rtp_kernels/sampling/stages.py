"""A batch of draws in two kernels, or five where tokens are cut off: no row is ever sorted.

`survey` reads every logit once, a tile a program, and leaves of each tile what the rest needs: the
best token (noise included where nothing is cut off), the mass, and the maxima of groups of tokens.
`bound` finds, from these maxima alone, a value that no token worth keeping lies below: of 50 groups
with maxima of at least v, 50 tokens are at least v. `gather` lists the tokens from there up, a few
in most rows. `finish` truncates that list exactly, adds noise, and counts the token it draws.
A row whose list overflows (flat, with a wide nucleus) is left to `search`.
"""

# ruff: noqa: ANN001, ANN201, PLR0913, PLR0917, PLR0124, SIM102 - device code
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportOperatorIssue=false

from __future__ import annotations

import triton
from triton import language as tl

from rtp_kernels.sampling import edges, noise, values
from rtp_kernels.sampling.fields import (
    CHOICE,
    LOG_MIN_P,
    MOST_COUNTED,
    NO_TOKEN,
    PENALISED,
    SEED_HIGH,
    SEED_LOW,
    TEMPERATURE,
    TOP_K,
    TOP_P,
)

# Noise lies in [-2.9, 16.7]: no token further below the maximum can win.
REACH = tl.constexpr(22.0)


@triton.jit
def truncates(records, slot):
    """Whether not every token of the slot may be drawn."""
    cut = values.word(records, slot, TOP_K) > 0
    cut |= values.real(records, slot, TOP_P) < 1.0
    cut |= values.real(records, slot, LOG_MIN_P) > -float("inf")
    return cut & (values.real(records, slot, TEMPERATURE) > 0)


@triton.jit(do_not_specialize_on_alignment=["slots", "positions", "history"])
def survey(logits, row_stride, slots, positions, records, counts, counts_stride, history,
           special_ids, special_bias, best, best_id, raw_best, mass, group_best, VOCAB,
           TILE: tl.constexpr, GROUP: tl.constexpr, CAPACITY: tl.constexpr,
           HISTORY: tl.constexpr, RANDOM: tl.constexpr, PROCESSED: tl.constexpr,
           TRUNCATED: tl.constexpr, RAW: tl.constexpr):  # fmt: skip
    """Grid (tiles, rows). Writes [rows, tiles] and group maxima [rows, tiles * TILE / GROUP].

    raw_best is NaN where a logit is.
    """
    GROUPS: tl.constexpr = TILE // GROUP
    tile = tl.program_id(0)
    row = tl.program_id(1)
    first = tile * TILE
    ids = first + tl.arange(0, TILE)
    x = values.raw_tile(logits, row, row_stride, ids, VOCAB)
    slot = tl.load(slots + row)
    if slot >= 0:
        at = row * tl.num_programs(0) + tile
        broken = tl.max((x != x).to(tl.int32)) > 0
        tl.store(raw_best + at, tl.where(broken, float("nan"), tl.max(x)))
        position = tl.load(positions + row)
        cut = RAW
        if not RAW:
            if PROCESSED:
                x = values.processed(
                    x, ids, first, row, slot, position, records, counts, counts_stride, history,
                    special_ids, special_bias, VOCAB, TILE, CAPACITY, HISTORY,
                )  # fmt: skip
            if RANDOM:
                temperature = values.real(records, slot, TEMPERATURE)
                cut = truncates(records, slot) if TRUNCATED else slot < 0
                if temperature > 0:
                    x = tl.div_rn(x, temperature)
                    if not cut:
                        x += noise.of_tile(
                            first,
                            values.unsigned(records, slot, SEED_LOW),
                            values.unsigned(records, slot, SEED_HIGH),
                            values.unsigned(records, slot, CHOICE),
                            position.to(tl.uint32),
                            TILE,
                        )
        top, place = tl.max(x, 0, return_indices=True, return_indices_tie_break_left=True)
        tl.store(best + at, top)
        tl.store(best_id + at, first + place)
        if TRUNCATED or RAW:
            if cut:
                shift = tl.where(top > -float("inf"), top, 0.0)
                tl.store(mass + at, tl.sum(tl.exp(x - shift)))
                groups = tl.max(tl.reshape(x, [GROUPS, GROUP]), axis=1)
                tl.store(group_best + at * GROUPS + tl.arange(0, GROUPS), groups)


@triton.jit
def total_mass(best, mass, row, tiles, TILES: tl.constexpr):
    """float32 maximum of the row, float64 sum of exp(x - maximum)."""
    each = tl.arange(0, TILES)
    tops = tl.load(best + row * tiles + each, mask=each < tiles, other=-float("inf"))
    masses = tl.load(mass + row * tiles + each, mask=each < tiles, other=0.0)
    peak = tl.max(tops)
    scale = tl.where(tops > -float("inf"), tl.exp(tops - peak), 0.0)
    return peak, tl.sum(masses.to(tl.float64) * scale.to(tl.float64))


@triton.jit(do_not_specialize_on_alignment=["slots"])
def bound(slots, records, best, mass, group_best, floors, found, tiles,
          TILES: tl.constexpr, GROUPS: tl.constexpr, EACH: tl.constexpr,
          WANTED: tl.constexpr):  # fmt: skip
    """Grid (rows,). floors float32 [rows]: no token below may be drawn; inf where no list is due.

    found becomes 0. WANTED > 0 asks for that many of the largest logits instead. A tile has EACH
    groups.
    """
    row = tl.program_id(0)
    slot = tl.load(slots + row)
    tl.store(found + row, 0)
    cut = slot >= 0
    if WANTED == 0:
        if cut:
            cut = truncates(records, slot)
    if not cut:
        tl.store(floors + row, float("inf"))
    else:
        groups = tiles * EACH
        each = tl.arange(0, GROUPS)
        tops = tl.load(group_best + row * groups + each, mask=each < groups, other=-float("inf"))
        keys = tl.where(tops > -float("inf"), edges.ordered(tops), 0)
        peak, total = total_mass(best, mass, row, tiles, TILES)
        floor = -float("inf")
        key = tl.full([], 0, tl.uint32)
        if WANTED > 0:
            key = edges.by_count(keys, WANTED)
        else:
            top_k = values.word(records, slot, TOP_K)
            top_p = values.real(records, slot, TOP_P)
            if (top_k == 0) | (top_p >= 1.0):
                # What lies below counts in no sum that is still to be made.
                log_min_p = values.real(records, slot, LOG_MIN_P)
                floor = peak + tl.maximum(log_min_p, -REACH)
            if top_k > 0:
                if top_k <= groups:
                    key = edges.by_count(keys, top_k)
            elif top_p < 1.0:
                weights = tl.where(keys > 0, tl.exp(tops - peak), 0.0).to(tl.float64)
                key = edges.by_mass(keys, weights, top_p.to(tl.float64) * total)
        if key > 0:
            floor = tl.maximum(floor, edges.value_of(key))
        tl.store(floors + row, floor)


@triton.jit(do_not_specialize_on_alignment=["slots", "positions", "history"])
def gather(logits, row_stride, slots, positions, records, counts, counts_stride, history,
           special_ids, special_bias, best, floors, found, kept, kept_id, tiles, VOCAB,
           TILE: tl.constexpr, SPAN: tl.constexpr, CAPACITY: tl.constexpr,
           HISTORY: tl.constexpr, PROCESSED: tl.constexpr, RAW: tl.constexpr,
           ROOM: tl.constexpr):  # fmt: skip
    """Grid (tiles / SPAN, rows). Lists values and ids from the floor up in any order, the first
    ROOM of them; found int32 [rows] counts them all. Most programs find nothing and leave.
    """
    start = tl.program_id(0) * SPAN
    row = tl.program_id(1)
    floor = tl.load(floors + row)
    own = start + tl.arange(0, SPAN)
    tops = tl.load(best + row * tiles + own, mask=own < tiles, other=-float("inf"))
    if (tl.max(tops) >= floor) & (floor < float("inf")):
        slot = tl.load(slots + row)
        position = tl.load(positions + row)
        for tile in range(start, tl.minimum(start + SPAN, tiles)):
            if tl.load(best + row * tiles + tile) >= floor:
                first = tile * TILE
                x = values.drawn_tile(
                    logits, row_stride, first, row, slot, position, records, counts,
                    counts_stride, history, special_ids, special_bias, VOCAB, TILE, CAPACITY,
                    HISTORY, PROCESSED, RAW,
                )  # fmt: skip
                hit = (x >= floor) & (x > -float("inf"))
                ones = hit.to(tl.int32)
                place = tl.atomic_add(found + row, tl.sum(ones), sem="relaxed")
                place += tl.cumsum(ones) - ones
                at = row * ROOM + place
                tl.store(kept + at, x, mask=hit & (place < ROOM))
                tl.store(kept_id + at, first + tl.arange(0, TILE), mask=hit & (place < ROOM))


@triton.jit
def pick(kept, kept_id, row, slot, position, records, count, peak, total, SIZE: tl.constexpr,
         ROOM: tl.constexpr):  # fmt: skip
    """The token of a row from its list of `count` <= SIZE values, truncated exactly."""
    each = tl.arange(0, SIZE)
    x = tl.load(kept + row * ROOM + each, mask=each < count, other=-float("inf"))
    ids = tl.load(kept_id + row * ROOM + each, mask=each < count, other=NO_TOKEN)
    keys = tl.where(each < count, edges.ordered(x), 0)
    keep = keys > 0
    top_k = values.word(records, slot, TOP_K)
    top_p = values.real(records, slot, TOP_P)
    if top_k > 0:
        keep &= keys >= edges.by_count(keys, top_k)
    if top_p < 1.0:
        weights = tl.where(keep, tl.exp(x - peak), 0.0).to(tl.float64)
        if top_k > 0:
            total = tl.sum(weights)
        target = top_p.to(tl.float64) * total
        keys = tl.where(keep, keys, 0)
        edge = edges.by_mass(keys, weights, target)
        if edge > 0:
            tied = keys == edge
            ties = tl.sum(tied.to(tl.int32))
            above = tl.sum(tl.where(keys > edge, weights, 0.0))
            weight = tl.max(tl.where(tied, weights, 0.0))
            # Of equal tokens those are kept, lowest ids first, before which mass is missing.
            allowed = tl.maximum(tl.ceil((target - above) / weight), 1.0)
            keep = keys > edge
            if allowed >= ties:
                keep |= tied
            else:
                keep |= edges.lowest(ids, tied, allowed.to(tl.int32))
    keep &= x >= peak + values.real(records, slot, LOG_MIN_P)
    x += noise.of_tokens(
        ids,
        values.unsigned(records, slot, SEED_LOW),
        values.unsigned(records, slot, SEED_HIGH),
        values.unsigned(records, slot, CHOICE),
        position.to(tl.uint32),
    )
    x = tl.where(keep, x, -float("inf"))
    return tl.min(tl.where(keep & (x == tl.max(x)), ids, NO_TOKEN))


@triton.jit
def count_token(slot, token, records, counts, counts_stride):
    """One more of `token` in the slot's counts, if the slot has any."""
    if values.word(records, slot, PENALISED) != 0:
        at = counts + slot.to(tl.int64) * counts_stride + token
        held = tl.load(at).to(tl.int32)
        times = tl.minimum((held & MOST_COUNTED) + 1, MOST_COUNTED)
        tl.store(at, ((held & ~MOST_COUNTED) | times).to(tl.int16))


@triton.jit(do_not_specialize_on_alignment=["slots", "positions"])
def finish(slots, positions, records, counts, counts_stride, best, best_id, raw_best, mass, found,
           kept, kept_id, token_ids, usable, tiles, TILES: tl.constexpr, TRUNCATED: tl.constexpr,
           COMMITS: tl.constexpr, SMALL: tl.constexpr, ROOM: tl.constexpr):  # fmt: skip
    """Grid (rows,). The token of each row, and its count (COMMITS).

    A row without a slot gets 0; one whose list overflowed -1, for `search` to replace.
    """
    row = tl.program_id(0)
    slot = tl.load(slots + row)
    token = tl.full([], 0, tl.int32)
    good = slot < 0
    if slot >= 0:
        each = tl.arange(0, TILES)
        at = row * tiles + each
        raw = tl.load(raw_best + at, mask=each < tiles, other=-float("inf"))
        tops = tl.load(best + at, mask=each < tiles, other=-float("inf"))
        broken = tl.max((raw != raw).to(tl.int32)) > 0
        peak = tl.max(raw)
        good = (not broken) & (peak > -float("inf")) & (peak < float("inf"))
        top, place = tl.max(tops, 0, return_indices=True, return_indices_tie_break_left=True)
        good &= top > -float("inf")
        if good:
            cut = False
            if TRUNCATED:
                cut = truncates(records, slot)
            if cut:
                if TRUNCATED:
                    position = tl.load(positions + row)
                    top, total = total_mass(best, mass, row, tiles, TILES)
                    count = tl.load(found + row)
                    token = tl.full([], -1, tl.int32)
                    if count <= SMALL:
                        token = pick(
                            kept, kept_id, row, slot, position, records, count, top, total,
                            SMALL, ROOM,
                        )  # fmt: skip
                    elif count <= ROOM:
                        token = pick(
                            kept, kept_id, row, slot, position, records, count, top, total,
                            ROOM, ROOM,
                        )  # fmt: skip
            else:
                token = tl.load(best_id + row * tiles + place)
            if COMMITS:
                if token >= 0:
                    count_token(slot, token, records, counts, counts_stride)
    tl.store(token_ids + row, token)
    tl.store(usable + row, good.to(tl.int8))
