"""Objects are streamed; files go to the loader that was asked for."""

from __future__ import annotations

from collections.abc import Callable

from rtp_core.api import LoadStats, WeightLoader, WeightPlan, WeightSink
from rtp_core.loading.file_order import FileOrderLoader
from rtp_core.loading.objects.stand_in import is_stand_in, open_at

READ_BYTES, IN_FLIGHT = 4 * 2**20, 32
"""Objects are answered in tens of milliseconds, each connection at some ten MB/s."""


class SourceLoader:
    """`api.WeightLoader` for either; `local` loads what lies on this machine."""

    def __init__(self, local: WeightLoader) -> None:
        self._local = local

    def load(
        self, plan: WeightPlan, sink: WeightSink, progress: Callable[[int], None]
    ) -> LoadStats:
        """See `api.WeightLoader`."""
        if not any(is_stand_in(file) for file in plan.file_bytes):
            return self._local.load(plan, sink, progress)
        return FileOrderLoader(open_at, READ_BYTES, IN_FLIGHT).load(plan, sink, progress)
