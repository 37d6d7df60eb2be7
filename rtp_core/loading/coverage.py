"""Every row of every destination is filled exactly once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rtp_core.api import ParameterSpec, WeightRule
from rtp_core.errors import WeightLoadError


def check_coverage(
    parameters: Sequence[ParameterSpec],
    rules: Iterable[WeightRule],
    zero_rows: Mapping[str, tuple[int, int]],
) -> None:
    """Raises WeightLoadError naming what is filled twice, not at all, or not known.

    Rules that fill the same rows with parts of one weight count once.
    """
    filling: dict[str, dict[tuple[int, int, str], WeightRule]] = {
        one.name: {} for one in parameters
    }
    for rule in rules:
        if rule.destination not in filling:
            raise WeightLoadError(f"no parameter {rule.destination!r}", tensor=rule.source)
        filling[rule.destination][rule.row_offset, rule.num_rows, rule.source] = rule
    for parameter in parameters:
        at = 0
        for rule in sorted(filling[parameter.name].values(), key=lambda one: one.row_offset):
            if rule.row_offset != at:
                raise WeightLoadError(f"rows around {at} are not filled once", tensor=rule.source)
            at += rule.num_rows
        first, end = zero_rows.get(parameter.name, (at, at))
        if first == at:
            at = end
        if at != parameter.shape[0]:
            raise WeightLoadError(
                f"{at} of {parameter.shape[0]} rows are filled", tensor=parameter.name
            )
