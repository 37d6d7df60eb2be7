"""Objects are streamed; files go to the loader that was asked for."""

from __future__ import annotations

from collections.abc import Callable

from rtp_core.api import LoadStats, WeightLoader, WeightPlan, WeightSink
from rtp_core.loading.file_order import STALL_S, FileOrderLoader
from rtp_core.loading.objects.stand_in import is_stand_in, open_at

READ_BYTES, IN_FLIGHT = 4 * 2**20, 32
"""Objects are answered in tens of milliseconds, each connection at some ten MB/s."""


class SourceLoader:
    """`api.WeightLoader` for either; `local` loads what lies on this machine."""

    def __init__(self, local: WeightLoader, stall_s: float = STALL_S) -> None:
        self._local = local
        self._stall_s = stall_s

    def load(
        self, plan: WeightPlan, sink: WeightSink, progress: Callable[[int], None]
    ) -> LoadStats:
        """See `api.WeightLoader`."""
        if not any(is_stand_in(file) for file in plan.file_bytes):
            return self._local.load(plan, sink, progress)
        streamed = FileOrderLoader(open_at, READ_BYTES, IN_FLIGHT, stall_s=self._stall_s)
        return streamed.load(plan, sink, progress)
