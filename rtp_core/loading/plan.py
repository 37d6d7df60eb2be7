"""From a weight table and a checkpoint to a complete, checked plan."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path

from rtp_core.api import (
    ParameterSpec,
    Placement,
    TensorInfo,
    WeightPlan,
    WeightRule,
    WeightTable,
)
from rtp_core.errors import WeightLoadError
from rtp_core.loading.checkpoint import Checkpoint
from rtp_core.loading.coverage import check_coverage
from rtp_core.loading.dequantize import DECODABLE
from rtp_core.loading.objects.stand_in import file_bytes, is_stand_in
from rtp_core.loading.quantized.tensor import PartPlacement, QuantizedTensor
from rtp_core.loading.small_reads import read_small

log = logging.getLogger("rtp.loading")
_MOST_NAMES = 10
_LARGEST_BIAS = 2**20
_TIED = "lm_head.weight"


def plan_weights(table: WeightTable, checkpoint: Checkpoint) -> WeightPlan:
    """Every destination row filled exactly once, or WeightLoadError before any allocation."""
    rules = spelt_rules(table, checkpoint.tensors)
    check_coverage(table.parameters, rules, {})
    parameters = {one.name: one for one in table.parameters}
    missing = [rule.source for rule in rules if rule.source not in checkpoint.tensors]
    if missing:
        raise WeightLoadError(
            f"missing: {_some(missing)}", file=str(checkpoint.root), remedy=_remedy(missing)
        )
    ignored = _ignored(rules, table.ignored, checkpoint)
    placements = []
    for rule in rules:
        tensor = checkpoint.tensors[rule.source]
        _check_tensor(tensor, rule, parameters[rule.destination])
        placements.extend(_placements(tensor, rule))
    files = {placement.tensor.file for placement in placements}
    return WeightPlan(
        table.parameters,
        tuple(placements),
        {file: file_bytes(file) for file in sorted(files)},
        ignored,
        {file: Path(file).stat().st_mtime_ns for file in sorted(files) if not is_stand_in(file)},
    )


def _placements(tensor: TensorInfo, rule: WeightRule) -> Iterable[Placement]:
    """One, or one a part."""
    if not isinstance(tensor, QuantizedTensor):
        return [Placement(tensor, rule)]
    parts = tensor.parts.items()
    return [PartPlacement(part, rule, part=name, whole=tensor) for name, part in parts]


def spelt_rules(table: WeightTable, names: Container[str]) -> tuple[WeightRule, ...]:
    """The rules for a checkpoint with tensors of these names."""
    chosen = [rule for rule in table.alternatives if rule.source in names]
    replaced = {rule.destination for rule in chosen}
    return (*(rule for rule in table.rules if rule.destination not in replaced), *chosen)


def _ignored(
    rules: Sequence[WeightRule], known: tuple[str, ...], checkpoint: Checkpoint
) -> dict[str, str]:
    """Why tensors have no place, by name. WeightLoadError for those that should have one."""
    used = {rule.source for rule in rules}
    rest = [name for name in checkpoint.tensors if name not in used]
    ignored = dict.fromkeys((name for name in rest if name.endswith(known)), "is computed instead")
    if _TIED in rest:
        ignored[_TIED] = "the head is tied to the embedding"
        log.info("tied_head tensor=%s ignored=true", _TIED)
    rest = [name for name in rest if name not in ignored]
    empty = _empty_biases(rest, checkpoint.tensors)
    ignored |= dict.fromkeys(sorted(empty), "a bias of zeros, the model has none")
    unexpected = [name for name in rest if name not in empty]
    if unexpected:
        raise WeightLoadError(f"unexpected: {_some(unexpected)}", file=str(checkpoint.root))
    return ignored


def _empty_biases(rest: list[str], tensors: Mapping[str, TensorInfo]) -> set[str]:
    """AutoGPTQ wrote a bias for every layer: zeros where the model has none."""
    modules = {name: name.removesuffix(".bias") for name in rest if name.endswith(".bias")}
    biases = [
        name
        for name, module in modules.items()
        if isinstance(tensors.get(f"{module}.weight"), QuantizedTensor)
        and tensors[name].num_bytes <= _LARGEST_BIAS
    ]
    data = read_small([tensors[name] for name in biases])
    empty = {name for name, one in zip(biases, data, strict=True) if not any(one)}
    if empty:
        log.info("empty_biases count=%d ignored=true", len(empty))
    return empty


def _check_tensor(tensor: TensorInfo, rule: WeightRule, parameter: ParameterSpec) -> None:
    wanted = (rule.num_rows, *parameter.shape[1:])
    shape = tensor.shape or (1,)  # a scalar is one row
    if len(shape) == 3 and len(wanted) == 2:  # matrices stacked in one tensor
        shape = (shape[0] * shape[1], shape[2])
    if shape != wanted:
        raise WeightLoadError(
            f"shape {list(tensor.shape)}, the configuration says {list(wanted)}",
            file=tensor.file,
            tensor=tensor.name,
        )
    if tensor.dtype not in DECODABLE and not isinstance(tensor, QuantizedTensor):
        raise WeightLoadError(
            f"dtype {tensor.dtype} cannot be loaded", file=tensor.file, tensor=tensor.name
        )


def _remedy(missing: list[str]) -> str:
    if missing == [_TIED]:
        return "set tie_word_embeddings in config.json if the head is tied"
    return "the checkpoint is incomplete or config.json belongs to another model"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more
