"""Kernels that write the tables of the slots: sequences that join, tokens that are drawn."""

# ruff: noqa: ANN001, ANN201, PLR0913, PLR0917 - device code
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportOperatorIssue=false

from __future__ import annotations

import triton
from triton import language as tl

from rtp_kernels.sampling.fields import WORDS
from rtp_kernels.sampling.stages import count_token

HEADER = 6


@triton.jit
def install(transfer, records, counts, counts_stride, special_ids, special_bias,
            CAPACITY: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Grid (entries,). An entry's header is [slot, penalised, specials at, how many, counts at,
    how many], then its record; the lists that these places name hold pairs of words.
    """
    header = transfer + tl.program_id(0) * WIDTH
    slot = tl.load(header)
    each = tl.arange(0, WORDS)
    tl.store(records + slot * WORDS + each, tl.load(header + WIDTH - WORDS + each))
    pairs = transfer + tl.load(header + 2)
    number = tl.load(header + 3)
    for start in range(0, number, BLOCK):
        j = start + tl.arange(0, BLOCK)
        token = tl.load(pairs + 2 * j, mask=j < number, other=0)
        more = tl.load(pairs + 2 * j + 1, mask=j < number, other=0)
        at = slot * CAPACITY + j
        tl.store(special_ids + at, token, mask=j < number)
        tl.store(special_bias + at, more.to(tl.float32, bitcast=True), mask=j < number)
    if tl.load(header + 1) != 0:
        table = counts + slot.to(tl.int64) * counts_stride
        for start in range(0, counts_stride, BLOCK):
            j = start + tl.arange(0, BLOCK)
            tl.store(table + j, tl.zeros([BLOCK], tl.int16), mask=j < counts_stride)
        tl.debug_barrier()  # the zeros of all threads come before any count
        pairs = transfer + tl.load(header + 4)
        number = tl.load(header + 5)
        for start in range(0, number, BLOCK):
            j = start + tl.arange(0, BLOCK)
            token = tl.load(pairs + 2 * j, mask=j < number, other=0)
            held = tl.load(pairs + 2 * j + 1, mask=j < number, other=0)
            tl.store(table + token, held.to(tl.int16), mask=j < number)


@triton.jit(do_not_specialize_on_alignment=["slots", "token_ids"])
def count_drawn(slots, token_ids, records, counts, counts_stride, LENGTH: tl.constexpr):
    """Grid (sequences,), one warp. Counts token_ids int32 [sequences, LENGTH]; -1 is none."""
    sequence = tl.program_id(0)
    slot = tl.load(slots + sequence)
    if slot >= 0:
        for j in range(LENGTH):
            token = tl.load(token_ids + sequence * LENGTH + j)
            if token >= 0:
                count_token(slot, token, records, counts, counts_stride)
            tl.debug_barrier()  # a token may come twice
