"""What attention kernels on a GPU read of a step, and the memory they work in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from rtp_kernels.paged_attention.choice import choose
from rtp_kernels.paged_attention.plan import Geometry

MAX_NEW_TOKENS = 16
"""New tokens a row that `decode` takes."""


@dataclass(frozen=True, slots=True)
class StepTables:
    """A step on the device. Rows are sequences; tokens of rows lie one after the other.

    block_tables int32 [rows, max_blocks].
    lengths int32 [rows]: keys, the row's new tokens included. 0 marks a padding row: it writes
    nothing, and its output is zeros.
    starts int32 [rows + 1]: first token of each row; for rows of equally many new tokens
    ``arange * new_tokens``.
    depths int32 [tokens]: position of a new token, less (length - new tokens); None = 0, 1, 2, …
    ancestors int32 [tokens]: bit j = sees new token j of its row, itself included; None = a chain.
    writes int8 or bool [rows]: whether the row stores keys and values; None = all do.
    rotary float32 [max_position, rotary_dim]: cos of rotary_dim / 2 angles, then their sin, any
    factor included. Fewer columns than head_dim turn the first dimensions only; none, nothing.
    """

    block_tables: Tensor
    lengths: Tensor
    starts: Tensor
    depths: Tensor | None
    ancestors: Tensor | None
    writes: Tensor | None
    rotary: Tensor


@dataclass(frozen=True, slots=True)
class Scratch:
    """Split-KV work space of `decode`, shared by all layers and steps of a stream.

    partial float32 [n]: unnormalised results; stats float32 [m]: maximum and sum of every query
    row and split; counters int32 [k]: splits that are done, zero between launches.
    """

    partial: Tensor
    stats: Tensor
    counters: Tensor

    @classmethod
    def allocate(
        cls, programs: int, splits: int, query_rows: int, head_dim: int, device: torch.device | str
    ) -> Scratch:
        """For `programs` groups of `query_rows` queries in `splits` parts."""
        rows = programs * splits * query_rows
        return cls(
            torch.empty(rows * head_dim, dtype=torch.float32, device=device),
            torch.empty(rows * 2, dtype=torch.float32, device=device),
            torch.zeros(programs, dtype=torch.int32, device=device),
        )

    @classmethod
    def for_steps(
        cls,
        geometry: Geometry,
        shapes: Iterable[tuple[int, int, int]],
        device: torch.device | str,
    ) -> Scratch:
        """For the largest of steps given as (rows, new tokens a row, context)."""
        partial = stats = counters = 1
        for rows, new_tokens, context in shapes:
            picked = choose(geometry, rows, new_tokens, context)
            programs = rows * geometry.num_kv_heads * picked.tiles
            counters = max(counters, programs)
            if picked.splits > 1:
                stats = max(stats, programs * picked.splits * picked.query_rows * 2)
                partial = max(partial, programs * picked.splits * picked.query_rows * picked.width)
        return cls(
            torch.empty(partial, dtype=torch.float32, device=device),
            torch.empty(stats, dtype=torch.float32, device=device),
            torch.zeros(counters, dtype=torch.int32, device=device),
        )

    def reset(self) -> None:
        """After a step that was aborted: its counters may have stopped half way."""
        self.counters.zero_()
