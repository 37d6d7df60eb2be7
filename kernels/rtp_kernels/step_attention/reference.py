"""Attention over `StepTables`, by the definition of `paged_attention`.

decode: rows of equally many new tokens; stores keys and values, then attends.
store, then ragged: the same in two parts, for rows of any number of new tokens.
All three normalise and rotate heads as `paged_attention` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch

from rtp_kernels.paged_attention import reference
from rtp_kernels.paged_attention.plan import AttentionPlan, Geometry, RowKeys
from rtp_kernels.paged_attention.tables import StepTables

Planes = tuple[torch.Tensor, torch.Tensor]
"""K and V of a layer, [kv_heads, slots, head_dim]."""
HeadNorms = tuple[torch.Tensor, torch.Tensor, float]
Runs = tuple[tuple[int, int], ...]


class StepAttention(Protocol):
    """The three calls, bound to a device and dtype, and their work space."""

    def reserve(
        self,
        geometries: Sequence[Geometry],
        shapes: Iterable[tuple[int, int, int]],
        device: torch.device | str,
    ) -> None:
        """Work space for all `decode` steps to come: (rows, new tokens a row, context)."""
        ...

    def decode(
        self,
        qkv: torch.Tensor,
        planes: Planes,
        tables: StepTables,
        geometry: Geometry,
        norms: HeadNorms | None,
        context: int,
    ) -> torch.Tensor:
        """qkv [rows * n, …] of rows of n new tokens each -> [rows * n, heads * head_dim].

        `context` is a bound of all lengths.
        """
        ...

    def store(
        self,
        qkv: torch.Tensor,
        planes: Planes,
        tables: StepTables,
        geometry: Geometry,
        norms: HeadNorms | None,
        max_new: int,
    ) -> None:
        """Norms and rotation in place on qkv; keys and values into their slots."""
        ...

    def ragged(
        self,
        qkv: torch.Tensor,
        planes: Planes,
        tables: StepTables,
        geometry: Geometry,
        max_new: int,
        runs: Runs | None = None,
    ) -> torch.Tensor:
        """[tokens, heads * head_dim]; keys are stored already.

        `runs`: what the host knows of the rows, if it does, for a choice of form: (new tokens,
        cached tokens before them) of each. There are no padding rows then.
        """
        ...

    def reset(self) -> None:
        """After a step that was aborted half way."""
        ...


class ReferenceStepAttention:
    """Row by row; chains only."""

    def reserve(
        self,
        geometries: Sequence[Geometry],
        shapes: Iterable[tuple[int, int, int]],
        device: torch.device | str,
    ) -> None:
        """Nothing is needed."""

    def decode(
        self,
        qkv: torch.Tensor,
        planes: Planes,
        tables: StepTables,
        geometry: Geometry,
        norms: HeadNorms | None,
        context: int,
    ) -> torch.Tensor:
        """`store`, then `ragged`."""
        qkv = qkv.clone()
        self.store(qkv, planes, tables, geometry, norms, context)
        return self.ragged(qkv, planes, tables, geometry, context)

    def store(
        self,
        qkv: torch.Tensor,
        planes: Planes,
        tables: StepTables,
        geometry: Geometry,
        norms: HeadNorms | None,
        max_new: int,
    ) -> None:
        """See `StepAttention`."""
        del max_new
        plan, _ = _plan(tables, geometry, qkv)
        q, k, v = reference.split_heads(qkv, plan, geometry, norms)
        reference.write(*planes, k, v, plan)
        qkv.copy_(torch.cat((q, k, v), dim=1).flatten(1))

    def ragged(
        self,
        qkv: torch.Tensor,
        planes: Planes,
        tables: StepTables,
        geometry: Geometry,
        max_new: int,
        runs: Runs | None = None,
    ) -> torch.Tensor:
        """See `StepAttention`. Raises ValueError where `runs` is not what the tables say."""
        del max_new
        if runs is not None:
            _compare(runs, tables)
        plan, writers = _plan(tables, geometry, qkv)
        heads, kv_heads = geometry.num_heads, geometry.num_kv_heads
        split = qkv.view(qkv.shape[0], heads + 2 * kv_heads, geometry.head_dim)
        ready = split[:, :heads], split[:, heads : heads + kv_heads], split[:, heads + kv_heads :]
        out = reference.paged_attention(ready, planes, plan, geometry)
        padding = torch.ones(out.shape[0], dtype=torch.bool, device=out.device)
        padding[writers] = False
        return out.masked_fill_(padding[:, None], 0.0)

    def reset(self) -> None:
        """Nothing is kept."""


def _compare(runs: Runs, tables: StepTables) -> None:
    new = tables.starts.diff().tolist()
    lengths = tables.lengths.tolist()
    found = tuple((n, length - n) for n, length in zip(new, lengths, strict=True))
    if runs != found:
        raise ValueError(f"runs {runs} given, but starts and lengths of the tables say {found}")


def _plan(
    tables: StepTables, geometry: Geometry, qkv: torch.Tensor
) -> tuple[AttentionPlan, torch.Tensor]:
    """The same step as `paged_attention` wants it, and the tokens that are no padding."""
    size, device = geometry.block_size, qkv.device
    starts = tables.starts.tolist()
    rows: list[RowKeys] = []
    positions = torch.zeros(qkv.shape[0], dtype=torch.int64, device=device)
    slots: list[torch.Tensor] = []
    writers: list[torch.Tensor] = []
    for number, length in enumerate(tables.lengths.tolist()):
        begin, count = starts[number], starts[number + 1] - starts[number]
        if length == 0:
            continue
        at = torch.arange(length, device=device)
        index = tables.block_tables[number].long()[at // size] * size + at % size
        rows.append(RowKeys(begin, count, length, -1, index, None))
        positions[begin : begin + count] = at[length - count :]
        slots.append(index[length - count :])
        writers.append(torch.arange(begin, begin + count, device=device))
    half = tables.rotary.shape[1] // 2
    cos, sin = tables.rotary[positions, :half], tables.rotary[positions, half:]
    none = torch.empty(0, dtype=torch.int64, device=device)
    present = torch.cat(writers) if writers else none
    plan = AttentionPlan(
        qkv.shape[0],
        tuple(rows),
        torch.cat(slots) if slots else none,
        -1,
        present,
        torch.cat((cos, cos), dim=-1)[:, None].to(qkv.dtype),
        torch.cat((-sin, sin), dim=-1)[:, None].to(qkv.dtype),
        None,
    )
    return plan, present


def bind(dtype: str) -> StepAttention:
    """Same for every dtype."""
    del dtype
    return ReferenceStepAttention()
