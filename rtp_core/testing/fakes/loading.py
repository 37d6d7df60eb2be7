"""A loader that reads whole files, and a sink that remembers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from rtp_core.api import LoadStats, Placement, WeightPlan, WeightSink
from rtp_core.errors import WeightLoadError


class WholeFileLoader:
    """`api.WeightLoader`: one file in memory at a time."""

    def load(
        self, plan: WeightPlan, sink: WeightSink, progress: Callable[[int], None]
    ) -> LoadStats:
        """Raises WeightLoadError when a file is shorter than planned."""
        began = time.perf_counter()
        for file, size in plan.file_bytes.items():
            content = Path(file).read_bytes()
            if len(content) < size:
                raise WeightLoadError(f"truncated to {len(content)} of {size} bytes", file=file)
            for placement in plan.placements:
                tensor = placement.tensor
                if tensor.file == file:
                    end = tensor.offset + tensor.num_bytes
                    sink.place(placement, memoryview(content)[tensor.offset : end])
                    progress(tensor.num_bytes)
        return LoadStats("whole_file", plan.num_bytes, time.perf_counter() - began)


class RecordingSink:
    """`api.WeightSink` that copies what arrives; `placed` in order of arrival."""

    def __init__(self) -> None:
        self.placed: list[tuple[Placement, bytes]] = []
        self._lock = threading.Lock()

    def place(self, placement: Placement, data: memoryview) -> None:
        """Copies, because the loader may reuse `data` after the return."""
        copy = bytes(data)
        with self._lock:
            self.placed.append((placement, copy))
