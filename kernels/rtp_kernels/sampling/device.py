"""Draws tokens for a whole batch on the device, with the noise and truncation of `reference`.

Nothing here waits for the device or reads from it. What runs depends on shapes and on facts the
host knows (`DrawRows`), so calls may be captured in a graph, and cheap batches take cheap kernels.
"""

# Launches of kernels:
# pyright: reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

from dataclasses import dataclass

import torch

from rtp_kernels.gpu.launch import enqueue
from rtp_kernels.gpu.sizes import ceil_div, next_power_of_2
from rtp_kernels.sampling.drafts import accept, expand
from rtp_kernels.sampling.ranking import rank
from rtp_kernels.sampling.search import search
from rtp_kernels.sampling.slots import SamplerSlots
from rtp_kernels.sampling.stages import bound, finish, gather, survey
from rtp_kernels.sampling.tables import count_drawn

ROOM = 4096  # tokens listed a row; a row with more is searched
SMALL = 512
FEW_ROWS = 16  # from here on a program of `gather` looks at SPAN tiles
SPAN = 4
# Tokens a program of `search` holds: more of them when registers hold no counts.
SEARCH_TILE = {True: 4096, False: 8192}
MAX_LOGPROBS = 20
# Quotients and sums are rounded as the definition rounds them, never fused.
_EXACT = {"enable_fp_fusion": False}


@dataclass(frozen=True, slots=True)
class DrawRows:
    """What each row of logits draws for, and what the host knows of all of them together.

    slot int32 [rows], -1 for a row that pads the batch; position int32 [rows], the index in the
    sequence of the token to draw; both on the device. any_random: a temperature other than 0;
    any_processed: penalties, bias or min_tokens; any_truncated: top_k, top_p or min_p.
    A fact that is false must hold for every row; one that is true may hold for none.
    commits: drawn tokens are counted for the penalties at once; then no slot comes twice.
    history int32 [rows, n]: tokens before the row that count as drawn, -1 for none.
    raw: the logits before they were masked, of which log-probabilities are taken.
    """

    slot: torch.Tensor
    position: torch.Tensor
    any_random: bool = True
    any_processed: bool = True
    any_truncated: bool = True
    commits: bool = True
    history: torch.Tensor | None = None
    raw: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Of the raw distribution: chosen float32 [rows], top_ids int32 and top_values float32
    [rows, n] in descending order; ids are -1 where a row has fewer finite logits.
    """

    chosen: torch.Tensor
    top_ids: torch.Tensor
    top_values: torch.Tensor


@dataclass(frozen=True, slots=True)
class Drawn:
    """token_ids int32 [rows]; usable int8 [rows], 0 where a row has a NaN or nothing finite."""

    token_ids: torch.Tensor
    usable: torch.Tensor
    logprobs: Logprobs | None


@dataclass(frozen=True, slots=True)
class Verified:
    """token_ids int32 [sequences, 1 + drafts], -1 past counts int32 [sequences]; usable int8
    [sequences]; rows int32 like token_ids: the row of logits (and of logprobs) behind each token.
    """

    token_ids: torch.Tensor
    counts: torch.Tensor
    usable: torch.Tensor
    rows: torch.Tensor
    logprobs: Logprobs | None


class _Tiles:
    """How rows are cut, and what the kernels hand one another about each tile."""

    def __init__(self, rows: int, vocab_size: int, device: torch.device, *, listed: bool) -> None:
        self.size, self.group = _cut(rows, vocab_size)
        self.number = ceil_div(vocab_size, self.size)
        self.padded = next_power_of_2(self.number)
        self.each = self.size // self.group
        cells = ceil_div(rows * self.number, 4) * 4  # each part begins at a multiple of 16 bytes
        reals = torch.empty(3 + self.each, cells, device=device)
        self.best, self.raw_best, self.mass = reals[:3].unbind(0)
        self.group_best = reals[3:]
        self.best_id = torch.empty(rows, self.number, dtype=torch.int32, device=device)
        self.floors, self.found, self.kept, self.kept_id = (self.best, self.best_id) * 2
        if listed:
            self.floors = torch.empty(rows, device=device)
            self.found = torch.empty(rows, dtype=torch.int32, device=device)
            self.kept = torch.empty(rows, ROOM, device=device)
            self.kept_id = torch.empty(rows, ROOM, dtype=torch.int32, device=device)


def _cut(rows: int, vocab_size: int) -> tuple[int, int]:
    """Tokens a tile and a group: few rows get small tiles, so that the device is full.

    The smaller the groups, the wider the nucleus whose floor their maxima show.
    """
    tile = 1024 if rows * vocab_size <= 2**20 else 2048
    return tile, 64 if vocab_size > 2**16 else 32


def draw(
    logits: torch.Tensor,
    slots: SamplerSlots,
    rows: DrawRows,
    logprobs: int | None = None,
) -> Drawn:
    """logits float32 or bfloat16 [rows, padded vocab], contiguous in a row -> a token a row.

    `logprobs` asks for that many alternatives a row, at most 20; 0 for the token's own only.
    """
    _check(logits, slots, rows)
    count = logits.shape[0]
    token_ids = torch.empty(count, dtype=torch.int32, device=logits.device)
    usable = torch.empty(count, dtype=torch.int8, device=logits.device)
    if count:
        _draw(logits, slots, rows, token_ids, usable)
    of = logits if rows.raw is None else rows.raw
    found = None if logprobs is None else _logprobs(of, slots, rows, token_ids, logprobs)
    return Drawn(token_ids, usable, found)


def verify(
    logits: torch.Tensor,
    slots: SamplerSlots,
    rows: DrawRows,
    drafts: torch.Tensor,
    parents: torch.Tensor | None = None,
    logprobs: int | None = None,
) -> Verified:
    """Draws for every draft's row and keeps the path on which drafts equal the tokens drawn.

    logits [sequences * (1 + n), padded vocab]: a sequence's rows together, row 1 + i after its
    draft i. `rows` holds slot and position of each sequence's first row. drafts int32
    [sequences, n], -1 where there is none; parents int32 like drafts: index of the draft before,
    -1 for the last known token, None for chains. Emitted tokens are counted if `rows.commits`.
    """
    sequences, number = drafts.shape
    total = sequences * (1 + number)
    row_slots, row_positions = torch.empty(
        2, ceil_div(total, 4) * 4, dtype=torch.int32, device=logits.device
    )[:, :total]
    history = torch.empty(total, number, dtype=torch.int32, device=logits.device)
    tree = parents is not None
    above = drafts if parents is None else parents
    if total:
        enqueue(expand, (total,),
            rows.slot, rows.position, drafts, above, row_slots, row_positions, history,
            DRAFTS=number, TREE=tree, num_warps=1,
        )  # fmt: skip
    flat = DrawRows(
        row_slots, row_positions, rows.any_random, rows.any_processed, rows.any_truncated,
        commits=False, history=history, raw=rows.raw,
    )  # fmt: skip
    drawn = draw(logits, slots, flat, logprobs)
    paths = torch.empty(2, sequences, 1 + number, dtype=torch.int32, device=logits.device)
    counts = torch.empty(sequences, dtype=torch.int32, device=logits.device)
    usable = torch.empty(sequences, dtype=torch.int8, device=logits.device)
    if total:
        enqueue(accept, (sequences,),
            rows.slot, drafts, above, drawn.token_ids, drawn.usable, paths[0], counts, usable,
            paths[1], DRAFTS=number, BLOCK=next_power_of_2(max(number, 1)), TREE=tree, num_warps=1,
        )  # fmt: skip
    if rows.commits and rows.any_processed:
        commit(slots, rows.slot, paths[0])
    return Verified(paths[0], counts, usable, paths[1], drawn.logprobs)


def commit(slots: SamplerSlots, slot: torch.Tensor, token_ids: torch.Tensor) -> None:
    """Counts tokens that were drawn for good: int32 [sequences, n], -1 for none; slot int32."""
    if token_ids.numel() and slots.counts_stride:
        enqueue(count_drawn, (token_ids.shape[0],),
            slot, token_ids, slots.records, slots.counts, slots.counts_stride,
            LENGTH=token_ids.shape[1], num_warps=1,
        )  # fmt: skip


def _check(logits: torch.Tensor, slots: SamplerSlots, rows: DrawRows) -> None:
    if logits.dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"logits are {logits.dtype}: pass float32 or bfloat16")
    if logits.shape[1] < slots.vocab_size:
        raise ValueError(
            f"logits have {logits.shape[1]} columns for a vocabulary of {slots.vocab_size}"
        )
    if logits.stride(1) != 1:
        raise ValueError(f"a row of logits must be contiguous, not of stride {logits.stride(1)}")
    if not logits.shape[0] == len(rows.slot) == len(rows.position):
        raise ValueError(
            f"{logits.shape[0]} rows of logits for {len(rows.slot)} slots and "
            f"{len(rows.position)} positions: give each row one"
        )


def _draw(
    logits: torch.Tensor,
    slots: SamplerSlots,
    rows: DrawRows,
    token_ids: torch.Tensor,
    usable: torch.Tensor,
) -> None:
    count = logits.shape[0]
    vocab = slots.vocab_size
    truncated = rows.any_random and rows.any_truncated
    tiles = _Tiles(count, vocab, logits.device, listed=truncated)
    inputs = _inputs(logits, slots, rows)
    shape = _shape(tiles, slots, rows)
    enqueue(survey, (tiles.number, count),
        *inputs, tiles.best, tiles.best_id, tiles.raw_best, tiles.mass, tiles.group_best, vocab,
        **shape, GROUP=tiles.group, RANDOM=rows.any_random, TRUNCATED=truncated, RAW=False,
        **_EXACT,
    )  # fmt: skip
    if truncated:
        _list(inputs, shape, slots, tiles, count, wanted=0)
    commits = rows.commits and rows.any_processed
    larger = {**shape, "TILE": SEARCH_TILE[rows.any_processed]}
    enqueue(finish, (count,),
        rows.slot, rows.position, slots.records, slots.counts, slots.counts_stride, tiles.best,
        tiles.best_id, tiles.raw_best, tiles.mass, tiles.found, tiles.kept, tiles.kept_id,
        token_ids, usable, tiles.number, TILES=tiles.padded, TRUNCATED=truncated,
        COMMITS=commits, SMALL=SMALL, ROOM=ROOM, num_warps=8 if truncated else 4, maxnreg=128,
        **_EXACT,
    )  # fmt: skip
    if truncated:
        enqueue(search, (count,),
            *inputs, tiles.best, tiles.mass, tiles.floors, token_ids, tiles.number, vocab,
            **larger, TILES=tiles.padded, COMMITS=commits, num_warps=16,
            **_EXACT,
        )  # fmt: skip


def _logprobs(
    logits: torch.Tensor, slots: SamplerSlots, rows: DrawRows, token_ids: torch.Tensor, wanted: int
) -> Logprobs:
    if not 0 <= wanted <= MAX_LOGPROBS:
        raise ValueError(f"logprobs is {wanted}: ask for 0 to {MAX_LOGPROBS} alternatives")
    count = logits.shape[0]
    chosen = torch.empty(count, device=logits.device)
    top_ids = torch.empty(count, wanted, dtype=torch.int32, device=logits.device)
    top_values = torch.empty(count, wanted, device=logits.device)
    if count:
        tiles = _Tiles(count, slots.vocab_size, logits.device, listed=wanted > 0)
        inputs = _inputs(logits, slots, rows)
        shape = {**_shape(tiles, slots, rows), "PROCESSED": False, "HISTORY": 0}
        enqueue(survey, (tiles.number, count),
            *inputs, tiles.best, tiles.best_id, tiles.raw_best, tiles.mass, tiles.group_best,
            slots.vocab_size, **shape, GROUP=tiles.group, RANDOM=False, TRUNCATED=False, RAW=True,
            **_EXACT,
        )  # fmt: skip
        if wanted:
            _list(inputs, shape, slots, tiles, count, wanted=wanted)
        enqueue(rank, (count,),
            logits, logits.stride(0), rows.slot, tiles.best, tiles.mass, tiles.found, tiles.kept,
            tiles.kept_id, token_ids, chosen, top_ids, top_values, tiles.number, slots.vocab_size,
            TILE=tiles.size, TILES=tiles.padded, ROOM=ROOM, WANTED=wanted, num_warps=8,
        )  # fmt: skip
    return Logprobs(chosen, top_ids, top_values)


def _list(
    inputs: tuple,
    shape: dict,
    slots: SamplerSlots,
    tiles: _Tiles,
    count: int,
    *,
    wanted: int,
) -> None:
    """Lists what may be drawn of each row, or at least its `wanted` largest logits."""
    enqueue(bound, (count,),
        inputs[2], slots.records, tiles.best, tiles.mass, tiles.group_best, tiles.floors,
        tiles.found, tiles.number, TILES=tiles.padded,
        GROUPS=next_power_of_2(tiles.number * tiles.each), EACH=tiles.each, WANTED=wanted,
        num_warps=8,
    )  # fmt: skip
    span = 1 if count < FEW_ROWS else SPAN
    enqueue(gather, (ceil_div(tiles.number, span), count),
        *inputs, tiles.best, tiles.floors, tiles.found, tiles.kept, tiles.kept_id, tiles.number,
        slots.vocab_size, **shape, SPAN=span, RAW=wanted > 0, ROOM=ROOM, num_warps=8,
        **_EXACT,
    )  # fmt: skip


def _inputs(logits: torch.Tensor, slots: SamplerSlots, rows: DrawRows) -> tuple:
    """The arguments that `survey`, `gather` and `finish` begin with."""
    history = rows.slot if rows.history is None else rows.history
    return (
        logits, logits.stride(0), rows.slot, rows.position, slots.records, slots.counts,
        slots.counts_stride, history, slots.special_ids, slots.special_bias,
    )  # fmt: skip


def _shape(tiles: _Tiles, slots: SamplerSlots, rows: DrawRows) -> dict:
    """The constants that they share."""
    return {
        "TILE": tiles.size,
        "CAPACITY": slots.capacity,
        "HISTORY": 0 if rows.history is None else rows.history.shape[1],
        "PROCESSED": rows.any_processed,
    }
