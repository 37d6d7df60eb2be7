"""What attention over paged keys needs to know of a step: the same for all layers.

A row is the run of new tokens of one sequence. Its keys lie in blocks of `block_size` slots
of the planes [kv_heads, slots, head_dim]; when the blocks are consecutive the keys are one
view, otherwise they are gathered by index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

KEY_TILE = 128
"""Exact forms take keys in tiles of this many, aligned at the sequence's first key."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Shape of one layer's attention. `window` counts visible keys; None = all.

    Scores are multiplied by `scale`, then limited by `soft_cap` if `softcap` is given.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    block_size: int
    scale: float
    window: int | None = None
    softcap: float | None = None

    @property
    def group(self) -> int:
        """Query heads a KV head."""
        return self.num_heads // self.num_kv_heads


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence's new tokens: `num_new` of them, after `start` cached ones.

    `parents` (tree drafts) has one entry a new token: the index of its parent in the row,
    -1 for the cached prefix; None means each token follows the one before it.
    `writes` False computes without storing keys and values.
    """

    start: int
    num_new: int
    blocks: Sequence[int]
    parents: Sequence[int] | None = None
    writes: bool = True


@dataclass(frozen=True, slots=True)
class RowKeys:
    """Where the queries of a row are and which slots hold its keys.

    Keys that no query of the row sees may be left out at the front; `num_keys` counts the rest.
    `first_slot` >= 0: keys are slots first_slot … + num_keys; else `index` lists them.
    `tree` [num_new, num_new] bool: which new token sees which; None = causal.
    """

    begin: int
    num_new: int
    num_keys: int
    first_slot: int
    index: torch.Tensor | None
    tree: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one new token each, padded to `width` keys: index [rows * width], bias
    [rows, 1, 1, width] with -inf on padding."""

    index: torch.Tensor
    bias: torch.Tensor
    width: int


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """cos and sin [tokens, 1, rotary_dim] (sin signed for the half swap); slots [writers].

    `writers` indexes tokens that store their keys; None = all. `first_slot` >= 0 when the
    slots written are consecutive. `batch` is set, and `rows` left empty, when all rows are
    single tokens best run together.
    """

    num_tokens: int
    rows: tuple[RowKeys, ...]
    slots: torch.Tensor
    first_slot: int
    writers: torch.Tensor | None
    cos: torch.Tensor
    sin: torch.Tensor
    batch: Batch | None


def all_rows(plan: AttentionPlan) -> tuple[RowKeys, ...]:
    """Every row, also when single tokens were batched."""
    if plan.batch is None:
        return plan.rows
    index = plan.batch.index.view(-1, plan.batch.width)
    lengths = (plan.batch.bias == 0).flatten(1).sum(1).tolist()
    return tuple(
        RowKeys(row, 1, length, -1, index[row, :length], None) for row, length in enumerate(lengths)
    )


def slot_of(blocks: Sequence[int], position: int, block_size: int) -> int:
    """Slot of the token at `position`."""
    return blocks[position // block_size] * block_size + position % block_size


def num_unseen(start: int, window: int | None, unit: int) -> int:
    """Leading keys that no query from position `start` on sees, in whole `unit`s."""
    return 0 if window is None else max(0, start + 1 - window) // unit * unit


def row_keys(
    row: Row, begin: int, block_size: int, device: torch.device | str, skip: int = 0
) -> RowKeys:
    """Locate the keys of a row whose queries start at token `begin` of the step.

    `skip` leading keys are left out. For an exact form they are whole key tiles, or the same
    number for every row of a sequence.
    """
    length = row.start + row.num_new
    first_block, offset = divmod(skip, block_size)
    blocks = row.blocks[first_block : -(-length // block_size)]
    first, index = -1, None
    if consecutive(blocks):
        first = blocks[0] * block_size + offset
    else:
        index = key_index(blocks, length - first_block * block_size, block_size, device)[offset:]
    num_keys = length - skip
    tree = None if row.parents is None else ancestor_mask(row.parents, device)
    return RowKeys(begin, row.num_new, num_keys, first, index, tree)


def consecutive(blocks: Sequence[int]) -> bool:
    """True when ids rise by one, so that the slots are one run."""
    first = blocks[0]
    if blocks[-1] - first != len(blocks) - 1:
        return False
    return all(block == first + offset for offset, block in enumerate(blocks))


def key_index(
    blocks: Sequence[int], num_keys: int, block_size: int, device: torch.device | str
) -> torch.Tensor:
    """Slots of keys 0 … num_keys - 1, int64."""
    starts = torch.tensor(blocks, dtype=torch.int64, device=device) * block_size
    offsets = torch.arange(block_size, device=device)
    return (starts[:, None] + offsets).flatten()[:num_keys]


def ancestor_mask(parents: Sequence[int], device: torch.device | str) -> torch.Tensor:
    """[n, n] bool: token i sees j iff j is i or an ancestor of i within the row."""
    mask = torch.zeros(len(parents), len(parents), dtype=torch.bool, device=device)
    for child, parent in enumerate(parents):
        if parent >= 0:
            mask[child] = mask[parent]
        mask[child, child] = True
    return mask
