"""From the plan of a whole model to that of one tensor-parallel rank.

A rank reads the bytes of the rows it holds and of nothing else. Of what is divided by columns
it reads all rows, and of quantized weights all parts: their `api.Cut` is taken once they are
weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rtp_core.api import Cut, ParameterSpec, Placement, TensorInfo, WeightPlan, WeightRule
from rtp_core.errors import WeightLoadError
from rtp_core.loading.coverage import check_coverage
from rtp_core.loading.dequantize import block_weights
from rtp_core.loading.quantized.tensor import PartPlacement
from rtp_core.loading.shares import Share, held_columns, held_rows


def plan_for(plan: WeightPlan, share: Share) -> WeightPlan:
    """`plan`, made for a whole model, with the parameters that a rank holds.

    Raises WeightLoadError for what cannot be divided, before anything is allocated.
    """
    if share.world == 1:
        return plan
    by_destination: dict[str, list[Placement]] = {one.name: [] for one in plan.parameters}
    for placement in plan.placements:
        by_destination[placement.rule.destination].append(placement)
    parameters: list[ParameterSpec] = []
    placements: list[Placement] = []
    zero_rows: dict[str, tuple[int, int]] = {}
    for parameter in plan.parameters:
        part = _Part(parameter, by_destination[parameter.name], share)
        parameters.append(part.parameter)
        placements.extend(part.placements())
        if part.filled < part.num_rows:
            zero_rows[parameter.name] = (part.filled, part.num_rows)
    check_coverage(parameters, [one.rule for one in placements], zero_rows)
    files = {one.tensor.file for one in placements}
    return replace(
        plan,
        parameters=tuple(parameters),
        placements=tuple(placements),
        file_bytes={file: size for file, size in plan.file_bytes.items() if file in files},
        zero_rows=zero_rows,
    )


class _Part:
    """A rank's part of one parameter."""

    def __init__(
        self, parameter: ParameterSpec, placements: Sequence[Placement], share: Share
    ) -> None:
        rules = {one.rule.row_offset: one.rule for one in placements}
        self._placements = placements
        self._rows = held_rows(parameter, list(rules.values()), share)
        self._columns = held_columns(parameter, share)
        self._whole = parameter
        self.num_rows = sum(map(len, self._rows))
        self.filled = sum(
            max(0, min(rows.stop, parameter.shape[0]) - rows.start) for rows in self._rows
        )

    @property
    def parameter(self) -> ParameterSpec:
        """As the rank allocates it."""
        shape = (self.num_rows, *self._whole.shape[1:])
        if self._columns is not None:
            first, end = self._columns
            shape = (*shape[:-1], end - first)
        return replace(self._whole, shape=shape)

    def placements(self) -> Iterator[Placement]:
        """In the order of the plan."""
        for placement in self._placements:
            at = 0
            for rows in self._rows:
                yield from self._overlap(placement, rows, at)
                at += len(rows)

    def _overlap(self, placement: Placement, rows: range, at: int) -> Iterator[Placement]:
        """What `placement` brings to rows that lie in the rank's parameter from `at` on."""
        rule = placement.rule
        first = max(rows.start, rule.row_offset)
        end = min(rows.stop, rule.row_offset + rule.num_rows)
        if first >= end:
            return
        here = replace(rule, row_offset=at + first - rows.start, num_rows=end - first)
        source = range(first - rule.row_offset, end - rule.row_offset)
        if isinstance(placement, PartPlacement):
            columns = self._columns or (0, placement.whole.shape[-1])
            yield replace(placement, rule=here, cut=Cut(columns, (source.start, source.stop)))
            return
        cut = None
        if self._columns is not None:
            _check_blocks(placement.tensor, self._columns)
            cut = Cut(self._columns)
        yield Placement(_some_rows(placement.tensor, rule, source), here, cut)


def _check_blocks(tensor: TensorInfo, columns: tuple[int, int]) -> None:
    """Columns must be whole blocks of the file."""
    block = block_weights(tensor.dtype)
    if any(edge % block for edge in columns):
        raise WeightLoadError(
            f"columns {columns[0]} to {columns[1]} are not whole blocks of {block} {tensor.dtype}",
            file=tensor.file,
            tensor=tensor.name,
            remedy="choose another number of ranks, or an unquantized file",
        )


def _some_rows(tensor: TensorInfo, rule: WeightRule, rows: range) -> TensorInfo:
    """These rows of the matrix that `rule` makes of a tensor, as a tensor of the file."""
    if len(rows) == rule.num_rows:
        return tensor
    row_bytes, rest = divmod(tensor.num_bytes, rule.num_rows)
    heads = tensor.unpermute_heads
    head_rows = rule.num_rows // heads if heads else 1
    if rest or rows.start % head_rows or rows.stop % head_rows:
        raise WeightLoadError(
            f"rows {rows.start} to {rows.stop} are not whole blocks or heads",
            file=tensor.file,
            tensor=tensor.name,
            remedy="choose another number of ranks",
        )
    return replace(
        tensor,
        offset=tensor.offset + rows.start * row_bytes,
        num_bytes=len(rows) * row_bytes,
        shape=(len(rows), *tensor.shape[-1:]) if len(tensor.shape) > 1 else (len(rows),),
        unpermute_heads=len(rows) // head_rows if heads else 0,
    )
