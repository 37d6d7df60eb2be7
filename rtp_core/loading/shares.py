"""What one of several tensor-parallel ranks holds of each parameter, by its `api.Shard`.

Fused weights are divided part by part: a rank's queries, keys and values lie together as the
whole model's do. Where ranks outnumber key-value heads, neighbours hold the same head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rtp_core.api import ModelSpec, ParameterSpec, Shard, WeightRule
from rtp_core.errors import WeightLoadError


@dataclass(frozen=True, slots=True)
class Share:
    """Rank `rank` of `world`; `num_experts` 0 for a model without."""

    rank: int
    world: int
    head_dim: int
    num_experts: int = 0

    @staticmethod
    def of(spec: ModelSpec, rank: int, world: int) -> Share:
        """A rank's share of a model."""
        experts = spec.experts.num_experts if spec.experts is not None else 0
        return Share(rank, world, spec.head_dim, experts)


def held_rows(
    parameter: ParameterSpec, rules: Sequence[WeightRule], share: Share
) -> tuple[range, ...]:
    """Rows of the whole parameter that the rank's consists of, in its order.

    `rules` fill the parameter. Rows beyond its end are zeros, of a vocabulary that is padded to
    equal parts. Raises WeightLoadError for what cannot be divided.
    """
    rows, world = parameter.shape[0], share.world
    if world == 1 or parameter.shard in (Shard.REPLICATED, Shard.COLUMNS):
        return (range(rows),)
    if parameter.shard is Shard.VOCABULARY:
        return (_even(parameter, range(-(-rows // world) * world), 1, share),)
    if parameter.shard is Shard.EXPERTS:
        return (_even(parameter, range(rows), rows // max(1, share.num_experts), share),)
    ordered = sorted(rules, key=lambda rule: rule.row_offset)
    if parameter.shard is Shard.ROWS:
        return tuple(_even(parameter, _rows_of(rule), 1, share) for rule in ordered)
    return tuple(_heads(parameter, ordered, share))


def held_columns(parameter: ParameterSpec, share: Share) -> tuple[int, int] | None:
    """Columns [first, end) of a parameter that is divided by columns; None for all."""
    if parameter.shard is not Shard.COLUMNS or share.world == 1:
        return None
    columns = _even(parameter, range(parameter.shape[-1]), 1, share)
    return columns.start, columns.stop


def _heads(parameter: ParameterSpec, rules: Sequence[WeightRule], share: Share) -> Iterator[range]:
    """Whole heads, of queries first, then of keys and of values."""
    for number, rule in enumerate(rules):
        rows, heads = _rows_of(rule), rule.num_rows // share.head_dim
        if number > 0 and share.world > heads > 0:
            if share.world % heads:
                raise _uneven(parameter, f"{heads} key-value heads", share)
            first = rows.start + share.rank * heads // share.world * share.head_dim
            yield range(first, first + share.head_dim)
        else:
            yield _even(parameter, rows, share.head_dim, share)


def _rows_of(rule: WeightRule) -> range:
    return range(rule.row_offset, rule.row_offset + rule.num_rows)


def _even(parameter: ParameterSpec, whole: range, unit: int, share: Share) -> range:
    """The rank's part of `whole`, which must be whole units for everyone."""
    if unit < 1 or len(whole) % (unit * share.world):
        raise _uneven(parameter, f"{len(whole)} rows or columns, {unit} together,", share)
    part = len(whole) // share.world
    return range(whole.start + share.rank * part, whole.start + (share.rank + 1) * part)


def _uneven(parameter: ParameterSpec, what: str, share: Share) -> WeightLoadError:
    return WeightLoadError(
        f"{what} cannot be divided by {share.world} ranks",
        tensor=parameter.name,
        remedy="choose another number of ranks",
    )
