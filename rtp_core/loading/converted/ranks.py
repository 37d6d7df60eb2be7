"""What one of several tensor-parallel ranks holds of each parameter, by its `api.Shard`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

from rtp_core.api import ModelSpec, ParameterSpec, Shard, WeightRule, WeightTable
from rtp_core.errors import ConfigError
from rtp_core.loading.shares import Share, held_columns, held_rows
from rtp_kernels.linear_weight import GROUP, GroupCodes, LinearWeight

_FLAG = "--tensor-parallel-size"
Weight = torch.Tensor | LinearWeight


def check_split(table: WeightTable, spec: ModelSpec, size: int, *, with_codes: bool) -> None:
    """Raises ConfigError naming what cannot be divided by so many ranks."""
    experts = spec.experts.num_experts if spec.experts is not None else size
    wholes = {
        "num_attention_heads": spec.num_heads,
        "intermediate_size": spec.intermediate_size,
        "num_experts": experts,
    }
    for name, whole in wholes.items():
        if whole % size:
            raise ConfigError(_FLAG, f"{name} {whole} is no multiple of {size}")
    kv_heads = spec.num_kv_heads
    if kv_heads % size and size % kv_heads:
        raise ConfigError(_FLAG, f"{kv_heads} key-value heads do not go with {size} ranks")
    columns = [one for one in table.parameters if one.linear and one.shard is Shard.COLUMNS]
    for one in columns if with_codes else ():
        if one.shape[1] % size or one.shape[1] // size % GROUP:
            raise ConfigError(
                _FLAG,
                f"{one.name} has {one.shape[1]} columns: {size} parts are not whole groups",
                remedy="pass --quantize none",
            )


def rank_parameters(
    table: WeightTable,
    spec: ModelSpec,
    parameters: Mapping[str, Weight],
    rank: int,
    size: int,
) -> dict[str, Weight]:
    """Parameters of `rank` out of `size`; all of them for one."""
    share = Share.of(spec, rank, size)
    if size == 1:
        return {one.name: parameters[one.name] for one in table.parameters}
    rules: dict[str, list[WeightRule]] = {}
    for rule in table.rules:
        rules.setdefault(rule.destination, []).append(rule)
    return {
        one.name: _part(parameters[one.name], one, rules[one.name], share)
        for one in table.parameters
    }


def _part(
    weight: Weight, parameter: ParameterSpec, rules: Sequence[WeightRule], share: Share
) -> Weight:
    columns = held_columns(parameter, share)
    if columns is not None:
        return _columns(weight, columns)
    if parameter.shard is Shard.REPLICATED:
        return weight
    return _rows(weight, held_rows(parameter, rules, share))


def _rows(weight: Weight, ranges: Iterable[range]) -> Weight:
    wanted = list(ranges)
    if isinstance(weight, torch.Tensor):
        return torch.cat([_padded_rows(weight, one) for one in wanted])
    codes = weight.codes
    parts = [
        torch.cat([_padded_rows(one, rows) for rows in wanted])
        for one in (weight.dense, codes.q, codes.scale, codes.minimum)
    ]
    return LinearWeight(parts[0], GroupCodes(codes.bits, *parts[1:]))


def _padded_rows(tensor: torch.Tensor, rows: range) -> torch.Tensor:
    """Rows beyond the end are zeros."""
    there = tensor[rows.start : min(rows.stop, len(tensor))]
    missing = len(rows) - len(there)
    if not missing:
        return there
    return torch.cat([there, tensor.new_zeros(missing, *tensor.shape[1:])])


def _columns(weight: Weight, columns: tuple[int, int]) -> Weight:
    first, end = columns
    if isinstance(weight, torch.Tensor):
        return weight[:, first:end].contiguous()
    codes = weight.codes
    groups = slice(first // GROUP, end // GROUP)
    return LinearWeight(
        weight.dense[:, first:end].contiguous(),
        GroupCodes(
            codes.bits,
            codes.q[:, first:end].contiguous(),
            codes.scale[:, groups].contiguous(),
            codes.minimum[:, groups].contiguous(),
        ),
    )
