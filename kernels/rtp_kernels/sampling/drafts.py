"""Kernels of verification: drafts become rows to draw, draws become the path they accept."""

# ruff: noqa: ANN001, ANN201, PLR0913, PLR0917 - device code
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportOperatorIssue=false

from __future__ import annotations

import triton
from triton import language as tl

from rtp_kernels.sampling.fields import NO_TOKEN

# Read and written a word at a time: where they begin need not make another specialisation.
_VIEWS = ["slots", "positions", "drafts", "parents"]
_PATHS = ["token_ids", "row_usable", "emitted", "number", "usable", "rows"]


@triton.jit
def parent_of(parents, at, node, alive, TREE: tl.constexpr):
    """Index of the draft before `node` of the sequence whose drafts begin at `at`, or -1."""
    before = node - 1
    if TREE:
        before = tl.load(parents + at + node, mask=alive, other=-1)
    return tl.where(alive, before, -1)


@triton.jit(do_not_specialize_on_alignment=_VIEWS)
def expand(slots, positions, drafts, parents, row_slots, row_positions, history,
           DRAFTS: tl.constexpr, TREE: tl.constexpr):  # fmt: skip
    """Grid (rows,). Slot, position and earlier drafts int32 [rows, DRAFTS] (-1 none) of each row.

    Rows of drafts that are not there (-1) get slot -1: nothing is drawn for them.
    """
    row = tl.program_id(0)
    sequence = row // (DRAFTS + 1)
    at = sequence * DRAFTS
    node = row % (DRAFTS + 1) - 1
    own = tl.load(drafts + at + node, mask=node >= 0, other=0)
    depth = 0
    for j in range(DRAFTS):
        alive = node >= 0
        tl.store(history + row * DRAFTS + j, tl.load(drafts + at + node, mask=alive, other=-1))
        depth += alive.to(tl.int32)
        node = parent_of(parents, at, node, alive, TREE)
    tl.store(row_slots + row, tl.where(own >= 0, tl.load(slots + sequence), -1))
    tl.store(row_positions + row, tl.load(positions + sequence) + depth)


@triton.jit(do_not_specialize_on_alignment=[*_VIEWS, *_PATHS])
def accept(slots, drafts, parents, token_ids, row_usable, emitted, number, usable, rows,
           DRAFTS: tl.constexpr, BLOCK: tl.constexpr, TREE: tl.constexpr):  # fmt: skip
    """Grid (sequences,). The path of drafts that equal the tokens drawn before them.

    emitted and rows int32 [sequences, DRAFTS + 1], -1 past `number` int32 [sequences]: the tokens,
    and the row of logits each was drawn from. A sequence with an unusable row emits nothing.
    """
    sequence = tl.program_id(0)
    first = sequence * (DRAFTS + 1)
    each = tl.arange(0, BLOCK)
    there = each < DRAFTS
    draft = tl.load(drafts + sequence * DRAFTS + each, mask=there, other=-1)
    before = each - 1
    if TREE:
        before = tl.load(parents + sequence * DRAFTS + each, mask=there, other=-2)
    good = tl.load(row_usable + first) != 0
    others = tl.load(row_usable + first + 1 + each, mask=draft >= 0, other=1)
    good &= tl.min(others.to(tl.int32)) != 0
    going = good & (tl.load(slots + sequence) >= 0)
    node = tl.full([], -1, tl.int32)
    count = 0
    for j in range(DRAFTS + 1):
        row = first + node + 1
        token = tl.load(token_ids + row)
        tl.store(emitted + first + j, tl.where(going, token, -1))
        tl.store(rows + first + j, tl.where(going, row, -1))
        count += going.to(tl.int32)
        match = (draft >= 0) & (draft == token) & (before == node)
        child = tl.min(tl.where(match, each, NO_TOKEN))
        going = going & (child != NO_TOKEN)
        node = tl.where(going, child, node)
    tl.store(number + sequence, count)
    tl.store(usable + sequence, good.to(tl.int8))
