"""Which experts each token goes to, and the order in which experts take their tokens.

A (token, choice) pair is numbered token * TOP_K + choice. Pairs are sorted by expert with a
counting sort on the device: blocks of tokens count their pairs of every expert, one program
makes offsets of the counts, and each pair goes to its offset. The sorted list has no gaps; a
table cuts it into tiles of one expert's pairs each. The host knows how many tiles there can be
and launches that many; how many there are stays on the device. A token's experts differ, so one
bit for each (token, expert) says all, and ranks are its running sums: no atomics, one order.
"""

# Which branches exist is decided when a kernel is compiled.
# ruff: noqa: ANN001, ANN202, ANN201, PLR0913, PLR0917 - device code
# pyright: reportPossiblyUnboundVariable=false, reportGeneralTypeIssues=false
# pyright: reportArgumentType=false, reportCallIssue=false
from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from triton import language as tl

from rtp_kernels.gpu import pdl
from rtp_kernels.gpu.launch import launch
from rtp_kernels.gpu.sizes import ceil_div, next_power_of_2

_ELEMENTS = 8192
"""Of the (token, expert) matrix that one program sorts alone."""
ENTRY = 4
"""Integers of a table's entry: expert, first place in the order, pairs. The first entry's first
integer is how many entries follow."""


@dataclass(frozen=True, slots=True)
class Choices:
    """`experts` int32 and `shares` float32, both [tokens, top_k]."""

    experts: torch.Tensor
    shares: torch.Tensor


@dataclass(frozen=True, slots=True)
class Routing:
    """`order` int32 [pairs], sorted by expert; `shares` float32 [pairs], not sorted.

    `table` int32 [1 + tiles, ENTRY], for at most `tiles` tiles of `block_m` pairs.
    """

    order: torch.Tensor
    shares: torch.Tensor
    table: torch.Tensor
    tiles: int
    block_m: int


@triton.jit
def _chosen(
    logits,
    rows,
    tokens,
    EXPERTS: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    TOP_K: tl.constexpr,
    SPLITS: tl.constexpr,
    NORMALIZE: tl.constexpr,
):
    """The choice that each expert is of each token, -1 for none, and its share: [ROWS, BLOCK]."""
    experts = tl.arange(0, BLOCK)
    real = (experts < EXPERTS)[None, :]
    inside = (rows < tokens)[:, None] & real
    at = rows[:, None].to(tl.int64) * EXPERTS + experts[None, :]
    scores = tl.load(logits + at, mask=inside, other=0.0)
    for part in tl.static_range(1, SPLITS):
        offset = part * tokens.to(tl.int64) * EXPERTS
        scores += tl.load(logits + offset + at, mask=inside, other=0.0)
    # Finite, NaN included: an expert that is taken or not there stays below all others, so that
    # a row of any content gets TOP_K experts that exist and differ.
    lowest = -1.0e38
    scores = tl.where(scores > lowest, scores, lowest)
    left = tl.where(real, scores, float("-inf"))
    weights = tl.exp(left - tl.max(left, 1)[:, None])
    choice = tl.full([ROWS, BLOCK], -1, tl.int32)
    for number in tl.static_range(TOP_K):
        best = tl.argmax(left, 1)
        here = experts[None, :] == best[:, None]
        choice = tl.where(here, number, choice)
        left = tl.where(here, float("-inf"), left)
    summed = tl.where(choice >= 0, weights, 0.0) if NORMALIZE else weights
    return choice, weights / tl.sum(summed, 1)[:, None]


@triton.jit
def _write_table(table, count, EXPERTS: tl.constexpr, BLOCK: tl.constexpr, BLOCK_M: tl.constexpr):
    """Entries of experts with `count` [BLOCK] pairs each."""
    experts = tl.arange(0, BLOCK)
    first = tl.cumsum(count, 0) - count
    number = (count + BLOCK_M - 1) // BLOCK_M
    at = table + 4 * (1 + tl.cumsum(number, 0) - number)
    tl.store(table, tl.sum(number, 0))
    for tile in range(tl.max(number, 0)):
        mine = tile < number
        done = tile * BLOCK_M
        tl.store(at + 4 * tile, experts, mask=mine)
        tl.store(at + 4 * tile + 1, first + done, mask=mine)
        tl.store(at + 4 * tile + 2, tl.minimum(count - done, BLOCK_M), mask=mine)


@triton.jit(do_not_specialize=["tokens"])
def sort_few_kernel(
    logits,
    order,
    shares,
    table,
    tokens,
    EXPERTS: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    TOP_K: tl.constexpr,
    SPLITS: tl.constexpr,
    NORMALIZE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    PDL: tl.constexpr,
):
    """Everything by one program; logits [SPLITS, tokens, EXPERTS], tokens <= ROWS."""
    pdl.release(PDL)
    pdl.wait(PDL)
    rows = tl.arange(0, ROWS)
    choice, share = _chosen(logits, rows, tokens, EXPERTS, BLOCK, ROWS, TOP_K, SPLITS, NORMALIZE)
    chosen = (choice >= 0) & (rows < tokens)[:, None]
    member = chosen.to(tl.int32)
    count = tl.sum(member, 0)
    first = tl.cumsum(count, 0) - count
    place = first[None, :] + tl.cumsum(member, 0) - member
    pair = rows[:, None] * TOP_K + choice
    tl.store(order + place, pair, mask=chosen)
    tl.store(shares + pair, share, mask=chosen)
    _write_table(table, count, EXPERTS, BLOCK, BLOCK_M)


@triton.jit(do_not_specialize=["tokens"])
def choose_kernel(
    logits,
    experts,
    shares,
    ranks,
    counts,
    tokens,
    EXPERTS: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    TOP_K: tl.constexpr,
    SPLITS: tl.constexpr,
    NORMALIZE: tl.constexpr,
    PDL: tl.constexpr,
):
    """Grid (blocks of ROWS tokens,). Experts and shares of each pair; its rank among its
    block's pairs of that expert, and `counts` [blocks, EXPERTS] of these, unless they are None.
    """
    pdl.release(PDL)
    pdl.wait(PDL)
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    choice, share = _chosen(logits, rows, tokens, EXPERTS, BLOCK, ROWS, TOP_K, SPLITS, NORMALIZE)
    chosen = (choice >= 0) & (rows < tokens)[:, None]
    expert = tl.arange(0, BLOCK)
    pair = rows[:, None] * TOP_K + choice
    numbers = tl.zeros([ROWS, BLOCK], tl.int32) + expert[None, :]
    tl.store(experts + pair, numbers, mask=chosen)
    tl.store(shares + pair, share, mask=chosen)
    if counts is not None:
        member = chosen.to(tl.int32)
        tl.store(ranks + pair, tl.cumsum(member, 0) - member, mask=chosen)
        at = counts + tl.program_id(0) * EXPERTS + expert
        tl.store(at, tl.sum(member, 0), mask=expert < EXPERTS)


@triton.jit(do_not_specialize=["blocks"])
def scan_kernel(
    counts,
    offsets,
    table,
    blocks,
    EXPERTS: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    PDL: tl.constexpr,
):
    """One program: offsets [blocks, EXPERTS] of each block's pairs, and the table."""
    pdl.release(PDL)
    pdl.wait(PDL)
    expert = tl.arange(0, BLOCK)
    count = tl.zeros([BLOCK], tl.int32)
    for begin in range(0, blocks, ROWS):
        block = begin + tl.arange(0, ROWS)
        inside = (block < blocks)[:, None] & (expert < EXPERTS)[None, :]
        at = block[:, None] * EXPERTS + expert[None, :]
        count += tl.sum(tl.load(counts + at, mask=inside, other=0), 0)
    _write_table(table, count, EXPERTS, BLOCK, BLOCK_M)
    before = tl.cumsum(count, 0) - count
    for begin in range(0, blocks, ROWS):
        block = begin + tl.arange(0, ROWS)
        inside = (block < blocks)[:, None] & (expert < EXPERTS)[None, :]
        at = block[:, None] * EXPERTS + expert[None, :]
        part = tl.load(counts + at, mask=inside, other=0)
        tl.store(offsets + at, before[None, :] + tl.cumsum(part, 0) - part, mask=inside)
        before += tl.sum(part, 0)


@triton.jit(do_not_specialize=["pairs"])
def place_kernel(
    experts,
    ranks,
    offsets,
    order,
    pairs,
    EXPERTS: tl.constexpr,
    PAIRS: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    """Grid (blocks of PAIRS pairs,): each pair to its place in the order."""
    pdl.release(PDL)
    pdl.wait(PDL)
    within = tl.arange(0, BLOCK)
    pair = tl.program_id(0) * PAIRS + within
    inside = (within < PAIRS) & (pair < pairs)
    expert = tl.load(experts + pair, mask=inside, other=0)
    offset = tl.load(offsets + tl.program_id(0) * EXPERTS + expert, mask=inside, other=0)
    rank = tl.load(ranks + pair, mask=inside, other=0)
    tl.store(order + offset + rank, pair, mask=inside)


def choose(logits: torch.Tensor, top_k: int, normalize: bool) -> Choices:
    """logits float32 [parts, tokens, experts], the parts yet to be added."""
    _, tokens, number = logits.shape
    experts = torch.empty((tokens, top_k), dtype=torch.int32, device=logits.device)
    shares = torch.empty((tokens, top_k), dtype=torch.float32, device=logits.device)
    rows = rows_of_choice(number, tokens)
    grid = (ceil_div(tokens, rows),)
    constants = _constants(logits, rows, top_k, normalize)
    launch(choose_kernel, grid, logits, experts, shares, None, None, tokens, warps=4, **constants)
    return Choices(experts, shares)


def route(logits: torch.Tensor, top_k: int, normalize: bool, block_m: int) -> Routing:
    """As `choose`, with the pairs in order; one kernel for few tokens, three for many."""
    _, tokens, experts = logits.shape
    pairs = tokens * top_k
    most = (pairs + min(experts, pairs) * (block_m - 1)) // block_m
    order = torch.empty(pairs, dtype=torch.int32, device=logits.device)
    shares = torch.empty(pairs, dtype=torch.float32, device=logits.device)
    table = torch.empty((1 + most, ENTRY), dtype=torch.int32, device=logits.device)
    routing = Routing(order, shares, table, most, block_m)
    if tokens <= _most_alone(experts):
        constants = _constants(logits, next_power_of_2(tokens), top_k, normalize)
        given = (logits, order, shares, table, tokens)
        launch(sort_few_kernel, (1,), *given, BLOCK_M=block_m, warps=8, **constants)
    else:
        _sort_many(logits, top_k, normalize, routing)
    return routing


def _sort_many(logits: torch.Tensor, top_k: int, normalize: bool, routing: Routing) -> None:
    _, tokens, number = logits.shape
    rows, wide = rows_of_choice(number, tokens), next_power_of_2(number)
    blocks, pairs = ceil_div(tokens, rows), tokens * top_k
    experts, ranks = torch.empty((2, pairs), dtype=torch.int32, device=logits.device)
    counts, offsets = torch.empty((2, blocks, number), dtype=torch.int32, device=logits.device)
    given = (logits, experts, routing.shares, ranks, counts, tokens)
    constants = _constants(logits, rows, top_k, normalize)
    launch(choose_kernel, (blocks,), *given, warps=4, **constants)
    constants = {"EXPERTS": number, "BLOCK": wide, "ROWS": max(1, _ELEMENTS // wide)}
    given = (counts, offsets, routing.table, blocks)
    launch(scan_kernel, (1,), *given, BLOCK_M=routing.block_m, warps=8, **constants)
    share = rows * top_k
    constants = {"EXPERTS": number, "PAIRS": share, "BLOCK": next_power_of_2(share)}
    given = (experts, ranks, offsets, routing.order, pairs)
    launch(place_kernel, (blocks,), *given, warps=4, **constants)


def rows_of_choice(experts: int, tokens: int) -> int:
    """Tokens whose experts one program chooses."""
    alone = _most_alone(experts)
    most = alone if tokens <= alone else max(1, alone // 2)
    return min(most, next_power_of_2(tokens))


def _most_alone(experts: int) -> int:
    return max(1, _ELEMENTS // next_power_of_2(experts))


def _constants(logits: torch.Tensor, rows: int, top_k: int, normalize: bool) -> dict[str, int]:
    parts, _, experts = logits.shape
    return {
        "EXPERTS": experts,
        "BLOCK": next_power_of_2(experts),
        "ROWS": rows,
        "TOP_K": top_k,
        "SPLITS": parts,
        "NORMALIZE": normalize,
    }
