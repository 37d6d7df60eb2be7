"""File-order loading of local paths, with reads as the storage and the device want them."""

from __future__ import annotations

from collections.abc import Callable

from rtp_core.api import LoadStats, WeightPlan, WeightSink
from rtp_core.loading.auto import AutoLoader


class StreamingLoader:
    """`api.WeightLoader`: ``file_order``, asked for by name."""

    def __init__(self, device: str, stall_s: float) -> None:
        self._device = device
        self._stall_s = stall_s

    def load(
        self, plan: WeightPlan, sink: WeightSink, progress: Callable[[int], None]
    ) -> LoadStats:
        """See `api.WeightLoader`."""
        stream = AutoLoader().probe(plan.file_bytes).stream(self._device)
        return stream.loader(self._stall_s).load(plan, sink, progress)
