"""Weights that are not numbers, found before they answer."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from rtp_core.api import Placement, WeightPlan
from rtp_core.errors import WeightLoadError
from rtp_kernels.linear_weight import LinearWeight

_CHUNK_WEIGHTS = 2**22


def check_finite(parameters: Mapping[str, torch.Tensor | LinearWeight], plan: WeightPlan) -> None:
    """Raises WeightLoadError naming the tensor of the first rows that hold NaN or infinity."""
    dense = [one for one in plan.placements if one.rule.destination in parameters]
    counts = [_not_finite(_rows(parameters, one)) for one in dense]
    if not counts:
        return
    for placement, count in zip(dense, torch.stack(counts).tolist(), strict=True):
        if count:
            raise WeightLoadError(
                f"{count} of its weights are NaN or infinite in {placement.rule.destination}",
                file=placement.tensor.file,
                tensor=placement.tensor.name,
                remedy="the file is damaged, or its numbers do not fit model.dtype",
            )


def _rows(
    parameters: Mapping[str, torch.Tensor | LinearWeight], placement: Placement
) -> torch.Tensor:
    weight = parameters[placement.rule.destination]
    dense = weight.dense if isinstance(weight, LinearWeight) else weight
    first = placement.rule.row_offset
    return dense[first : first + placement.rule.num_rows]


def _not_finite(rows: torch.Tensor) -> torch.Tensor:
    """How many, as a tensor: a device is asked once for all."""
    count = torch.zeros((), dtype=torch.int64, device=rows.device)
    for part in rows.reshape(-1).split(_CHUNK_WEIGHTS):
        count += part.isfinite().logical_not_().sum()
    return count
