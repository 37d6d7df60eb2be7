"""Weights through a memory map, in file order: best when pages are cached or local."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from pathlib import Path

from rtp_core.api import LoadStats, WeightPlan, WeightSink
from rtp_core.errors import WeightLoadError
from rtp_core.loading.order import by_file


class MmapLoader:
    """One map a file, dropped as soon as its last tensor is placed."""

    def load(
        self, plan: WeightPlan, sink: WeightSink, progress: Callable[[int], None]
    ) -> LoadStats:
        """See `api.WeightLoader`."""
        began = time.perf_counter()
        for file, placements in by_file(plan).items():
            size = Path(file).stat().st_size
            if size < plan.file_bytes[file]:
                raise WeightLoadError(
                    f"truncated from {plan.file_bytes[file]} to {size} bytes since it was opened",
                    file=file,
                )
            with Path(file).open("rb") as handle:
                mapped = mmap.mmap(handle.fileno(), 0, flags=mmap.MAP_PRIVATE)
                view = memoryview(mapped)
                for placement in placements:
                    tensor = placement.tensor
                    sink.place(placement, view[tensor.offset : tensor.offset + tensor.num_bytes])
                    progress(tensor.num_bytes)
        return LoadStats("mmap", plan.num_bytes, time.perf_counter() - began)
