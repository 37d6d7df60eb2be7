"""Run a loader over a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from rtp_core.api import LoadStats, WeightLoader, WeightPlan
from rtp_core.errors import WeightLoadError
from rtp_core.loading.converted.read import ConvertedPlan, load_converted
from rtp_core.loading.sink import Parameters, TensorSink
from rtp_core.loading.transfer import give_back_buffers
from rtp_core.loading.unchanged import Unchanged


def load_weights(
    plan: WeightPlan,
    loader: WeightLoader,
    device: str,
    progress: Callable[[int], None],
    *,
    keep_codes: bool = False,
    into: Mapping[str, torch.Tensor] | None = None,
) -> tuple[Parameters, LoadStats]:
    """All parameters by destination name, and what the loader did.

    With `keep_codes`, linear weights from quantized files keep their group codes. `into` holds
    destinations from `sink.allocate`; they may be looked at, not read, while they are filled.

    Raises WeightLoadError, also for what the system says about a file, and for a file that is
    changed meanwhile.
    """
    try:
        files = Unchanged(plan)
        if isinstance(plan, ConvertedPlan) and device == "cpu":
            loaded = load_converted(plan, loader, device, progress, into)
        else:
            sink = TensorSink(plan, device, keep_codes=keep_codes, into=into)
            stats = loader.load(plan, sink, progress)
            loaded = sink.parameters(), stats
        files.verify()
    except OSError as error:
        file = "" if error.filename is None else str(error.filename)
        raise WeightLoadError(f"cannot be read: {error.strerror or error}", file=file) from error
    give_back_buffers(device)
    return loaded
