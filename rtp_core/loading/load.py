"""Run a loader over a plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rtp_core.api import LoadStats, WeightLoader, WeightPlan
from rtp_core.loading.sink import TensorSink

if TYPE_CHECKING:
    import torch


def load_weights(
    plan: WeightPlan, loader: WeightLoader, device: str, progress: Callable[[int], None]
) -> tuple[dict[str, torch.Tensor], LoadStats]:
    """All parameters by destination name, and what the loader did."""
    sink = TensorSink(plan, device)
    stats = loader.load(plan, sink, progress)
    return sink.parameters(), stats
