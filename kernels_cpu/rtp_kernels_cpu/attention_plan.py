"""What attention needs to know of a step, once for all layers, as the library reads it."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from rtp_kernels.paged_attention.plan import Row, slot_of
from rtp_kernels_cpu.library import AttentionPlan

MOST_TREE_TOKENS = 64
"""New tokens of a row whose drafts form a tree: their masks are 64-bit words."""


@dataclass(frozen=True, slots=True, eq=False)
class PagedPlan:
    """Keeps alive what `address` points to.

    rows: five int32 a row; tables: block ids of all rows; slots: one int32 a token, -1 if its
    key is not stored; trees: one word a token of rows with tree drafts; cos, sin float32
    [tokens, rotary]. Planes must have `num_slots` slots or more.
    """

    num_tokens: int
    num_slots: int
    rows: array[int]
    tables: array[int]
    slots: array[int]
    trees: array[int]
    cos: torch.Tensor
    sin: torch.Tensor
    address: int = field(init=False, repr=False)
    _description: AttentionPlan = field(init=False, repr=False)

    def __post_init__(self) -> None:
        description = AttentionPlan(
            *(part.buffer_info()[0] for part in (self.rows, self.tables, self.slots, self.trees)),
            self.cos.data_ptr(),
            self.sin.data_ptr(),
            self.num_tokens,
            len(self.rows) // 5,
            self.cos.shape[-1],
        )
        object.__setattr__(self, "_description", description)
        object.__setattr__(self, "address", ctypes.addressof(description))


def plan_rows(
    rows: Sequence[Row], block_size: int, cos: torch.Tensor, sin: torch.Tensor
) -> PagedPlan:
    """Plan of a step's rows, in the order of its tokens.

    cos and sin (signed for the swap of halves) are [tokens, 1, rotary] of any float dtype, as
    `rtp_kernels.paged_attention.rotary` makes them. Raises ValueError for blocks that do not
    hold a row's keys and for trees of more than 64 tokens.
    """
    words, tables, slots, trees = array("i"), array("i"), array("i"), array("Q")
    num_tokens = 0
    for row in rows:
        num_keys = row.start + row.num_new
        blocks = row.blocks[: -(-num_keys // block_size)]
        _check(row, blocks, num_keys, block_size)
        tree = -1 if row.parents is None else len(trees)
        words.extend((num_tokens, row.num_new, num_keys, len(tables), tree))
        tables.extend(blocks)
        trees.extend(_ancestors(row.parents or ()))
        slots.extend(_row_slots(row, block_size))
        num_tokens += row.num_new
    if cos.shape[0] != num_tokens or sin.shape != cos.shape:
        raise ValueError(f"cos and sin have {cos.shape[0]} tokens, the rows {num_tokens}")
    flat_cos, flat_sin = (table.flatten(1).float().contiguous() for table in (cos, sin))
    num_slots = (max(tables, default=-1) + 1) * block_size
    return PagedPlan(num_tokens, num_slots, words, tables, slots, trees, flat_cos, flat_sin)


def _check(row: Row, blocks: Sequence[int], num_keys: int, block_size: int) -> None:
    if len(blocks) * block_size < num_keys:
        raise ValueError(f"{len(blocks)} blocks of {block_size} do not hold {num_keys} keys")
    if row.parents is not None and row.num_new > MOST_TREE_TOKENS:
        raise ValueError(f"a tree has at most {MOST_TREE_TOKENS} tokens, not {row.num_new}")


def _row_slots(row: Row, block_size: int) -> Sequence[int]:
    if not row.writes:
        return (-1,) * row.num_new
    positions = range(row.start, row.start + row.num_new)
    return [slot_of(row.blocks, position, block_size) for position in positions]


def _ancestors(parents: Sequence[int]) -> list[int]:
    """One word a token: bits of itself and of its ancestors in the row."""
    words: list[int] = []
    for child, parent in enumerate(parents):
        words.append((1 << child) | (words[parent] if parent >= 0 else 0))
    return words
