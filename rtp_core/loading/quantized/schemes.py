"""compressed-tensors' configuration: which modules are quantized how.

`config_groups` give a scheme to `targets`: names of modules, ``re:`` patterns matched from the
start of a name, or the class ``Linear``; `ignore` lists modules that have none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rtp_core.errors import ModelError
from rtp_core.loading.quantized.settings import (
    SECTION,
    choice,
    flag,
    group_size,
    natural,
    refuse,
    section,
    texts,
)

FORMATS = (
    "float-quantized",
    "int-quantized",
    "naive-quantized",
    "pack-quantized",
    "dense",
    "mixed-precision",
)
_CLASS = "Linear"
_PATTERN = "re:"
_LONGEST_PATTERN = 500


@dataclass(frozen=True, slots=True)
class Scheme:
    """How the weights of some modules are stored; `strategy` says what shares a scale."""

    kind: str
    bits: int
    symmetric: bool
    strategy: str
    group_size: int | None
    block: tuple[int, int] | None


class Schemes:
    """The scheme of every module."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        choice(settings, "format", FORMATS, "dense")
        _check_sparsity(settings)
        if section(settings, "transform_config").get("config_groups"):
            refuse("transform_config", "an online transform", "none: it is not applied here")
        self._ignored = tuple(texts(settings, "ignore"))
        for target in self._ignored:
            _pattern(target)
        groups = section(settings, "config_groups")
        self._targets = [pair for name in groups for pair in _targets(groups, name)]

    def of(self, module: str) -> Scheme:
        """Raises ModelError when the configuration calls the module unquantized."""
        if ignoring := next((one for one in self._ignored if _names(one, module)), None):
            raise _contradiction(module, f"ignore names {ignoring!r}")
        for rank in (_is_name, _is_pattern, _is_class):
            for target, scheme in self._targets:
                if rank(target) and (target == _CLASS or _names(target, module)):
                    return scheme
        raise _contradiction(module, "no target of config_groups names it")


def _targets(groups: Mapping[str, Any], name: str) -> Iterable[tuple[str, Scheme]]:
    group = section(groups, name)
    choice(group, "format", FORMATS, "dense")
    weights = section(group, "weights")
    if not weights:
        return
    scheme, targets = _scheme(weights), texts(group, "targets")
    for target in targets:
        _pattern(target)
        yield target, scheme


def _scheme(weights: Mapping[str, Any]) -> Scheme:
    kind = choice(weights, "type", ("int", "float"), "int")
    bits = choice(weights, "num_bits", (8,) if kind == "float" else (2, 4, 8), 8)
    size = None if weights.get("group_size") is None else group_size(weights)
    grouped = "tensor" if weights.get("group_size") is None else "group" if size else "channel"
    allowed = ("tensor", "channel", "group", "block" if kind == "float" else "group")
    strategy = choice(weights, "strategy", allowed, grouped)
    if strategy == "group" and size is None:
        refuse("config_groups: group_size", size, "a size, since strategy is group")
    return Scheme(
        kind,
        bits,
        flag(weights, "symmetric", default=True),
        strategy,
        size if strategy == "group" else None,
        _block(weights.get("block_structure")) if strategy == "block" else None,
    )


def _block(value: Any) -> tuple[int, int]:
    """``[128, 128]`` or ``"128x128"``."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,6}x[0-9]{1,6}", value):
        value = [int(part) for part in value.split("x")]
    match value:
        case [height, width]:
            return natural(height, "block_structure"), natural(width, "block_structure")
    refuse("config_groups: block_structure", value, "rows and columns")


def _check_sparsity(settings: Mapping[str, Any]) -> None:
    found = section(settings, "sparsity_config").get("format") or "dense"
    if found != "dense":
        refuse("sparsity_config.format", found, "dense: sparse weights are not read")


def _is_name(target: str) -> bool:
    return not _is_pattern(target) and not _is_class(target)


def _is_pattern(target: str) -> bool:
    return target.startswith(_PATTERN)


def _is_class(target: str) -> bool:
    return target == _CLASS


def _names(target: str, module: str) -> bool:
    """Whether a name or pattern means this module."""
    return bool(_pattern(target).match(module)) if _is_pattern(target) else target == module


def _pattern(target: str) -> re.Pattern[str]:
    """The compiled pattern; of a plain name, one that nothing needs."""
    text = target.removeprefix(_PATTERN) if _is_pattern(target) else ""
    if len(text) > _LONGEST_PATTERN:
        refuse("", target, f"patterns of at most {_LONGEST_PATTERN} characters")
    try:
        return re.compile(text)
    except re.error as error:
        raise ModelError(
            f"config.json: {SECTION} has the pattern {target!r:.80}: {error}",
            remedy="mend config.json",
        ) from error


def _contradiction(module: str, why: str) -> ModelError:
    return ModelError(
        f"config.json: {module} is quantized, but in {SECTION} {why}",
        remedy="config.json belongs to another checkpoint",
    )
