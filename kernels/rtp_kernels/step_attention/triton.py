"""The kernels of `paged_attention`, with the work space that all layers and steps share.

Whole prompts and chunks go through cuDNN where `parts` says that it pays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from rtp_kernels.paged_attention import decode, dense, ragged
from rtp_kernels.paged_attention.choice import choose, power_of_2
from rtp_kernels.paged_attention.plan import Geometry
from rtp_kernels.paged_attention.tables import Scratch, StepTables
from rtp_kernels.step_attention.parts import Part, cut
from rtp_kernels.step_attention.reference import HeadNorms, Planes, Runs, StepAttention


class TritonStepAttention:
    """See `reference.StepAttention`; one stream at a time. `uses_dense`: cuDNN may be called."""

    def __init__(self, uses_dense: bool) -> None:
        self._uses_dense = uses_dense
        self._scratch: Scratch | None = None
        self._shifts: dict[int, torch.Tensor] = {}

    def reserve(
        self,
        geometries: Sequence[Geometry],
        shapes: Iterable[tuple[int, int, int]],
        device: torch.device | str,
    ) -> None:
        """See `StepAttention`; captured launches keep the addresses."""
        shapes = {(power_of_2(rows), new, context) for rows, new, context in shapes}
        found = [Scratch.for_steps(geometry, shapes, device) for geometry in geometries]
        self._scratch = Scratch(
            max((one.partial for one in found), key=len),
            max((one.stats for one in found), key=len),
            max((one.counters for one in found), key=len),
        )

    def decode(
        self,
        qkv: torch.Tensor,
        planes: Planes,
        tables: StepTables,
        geometry: Geometry,
        norms: HeadNorms | None,
        context: int,
    ) -> torch.Tensor:
        """One kernel."""
        if self._scratch is None:
            raise RuntimeError("reserve work space before the first step")
        rows = tables.lengths.shape[0]
        new_tokens = qkv.shape[0] // rows
        # A few choices serve all numbers of rows, so that all are compiled at the start.
        choice = choose(geometry, power_of_2(rows), new_tokens, context)
        return decode.decode(
            qkv,
            planes,
            tables,
            geometry,
            norms,
            new_tokens,
            self._scratch,
            context=context,
            choice=choice,
        )

    def store(
        self,
        qkv: torch.Tensor,
        planes: Planes,
        tables: StepTables,
        geometry: Geometry,
        norms: HeadNorms | None,
        max_new: int,
    ) -> None:
        """One kernel."""
        ragged.store(qkv, planes, tables, geometry, norms, max_new)

    def ragged(
        self,
        qkv: torch.Tensor,
        planes: Planes,
        tables: StepTables,
        geometry: Geometry,
        max_new: int,
        runs: Runs | None = None,
    ) -> torch.Tensor:
        """One kernel, or a call for each part."""
        if runs is None or not self._takes_dense(qkv, planes, tables):
            return ragged.ragged(qkv, planes, tables, geometry, max_new)
        parts = cut(runs, geometry)
        if len(parts) == 1 and parts[0].length:
            return _dense(qkv, planes, tables, geometry, parts[0])
        # All made before the first call: kernels read tables before they wait for the launch
        # ahead of them, which must not be the one that writes a table.
        tables_of = [self._rows(tables, part) for part in parts]
        out = qkv.new_empty(qkv.shape[0], geometry.num_heads * geometry.head_dim)
        for part, rows in zip(parts, tables_of, strict=True):
            if part.length:
                at = slice(part.first_token, part.first_token + part.tokens)
                out[at] = _dense(qkv, planes, tables, geometry, part)
            else:
                ragged.ragged(qkv, planes, rows, geometry, max_new, out=out, tokens=part.tokens)
        return out

    def _takes_dense(self, qkv: torch.Tensor, planes: Planes, tables: StepTables) -> bool:
        """Chains, and planes that hold keys as they are in qkv."""
        return self._uses_dense and tables.depths is None and planes[0].dtype == qkv.dtype

    def _rows(self, tables: StepTables, part: Part) -> StepTables:
        """Of a part's rows; tokens are counted from the step's first."""
        at = slice(part.first_row, part.first_row + part.rows)
        starts = tables.starts[part.first_row : part.first_row + part.rows + 1]
        if part.skip:
            if part.skip not in self._shifts:
                self._shifts[part.skip] = starts.new_tensor([part.skip, 0])
            starts = starts + self._shifts[part.skip]
        return replace(
            tables, block_tables=tables.block_tables[at], lengths=tables.lengths[at], starts=starts
        )

    def reset(self) -> None:
        """Counters of split keys may have stopped half way."""
        if self._scratch is not None:
            self._scratch.reset()


def _dense(
    qkv: torch.Tensor, planes: Planes, tables: StepTables, geometry: Geometry, part: Part
) -> torch.Tensor:
    tokens = qkv[part.first_token : part.first_token + part.tokens]
    blocks = tables.block_tables[part.first_row : part.first_row + part.rows]
    return dense.dense_chunk(tokens, planes, blocks, geometry, part.length, part.prefix)


def bind(dtype: str) -> StepAttention:
    """Same for every half precision."""
    del dtype
    return TritonStepAttention(dense.available())
