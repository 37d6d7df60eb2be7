"""Weights through a memory map, in file order: best when pages are cached or local.

A few threads decode, and wait for pages that are not in memory, side by side.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from rtp_core.api import LoadStats, Placement, WeightPlan, WeightSink
from rtp_core.errors import WeightLoadError
from rtp_core.loading.order import by_file

THREADS = 4


class FileMap(mmap.mmap):
    """Pages of a file. Unlike the buffers of other loaders they are never used for other bytes."""


class MmapLoader:
    """One map a file, dropped as soon as its last tensor is placed."""

    def load(
        self, plan: WeightPlan, sink: WeightSink, progress: Callable[[int], None]
    ) -> LoadStats:
        """See `api.WeightLoader`."""
        began = time.perf_counter()
        with ThreadPoolExecutor(THREADS, "rtp-map") as pool:
            for file, placements in by_file(plan).items():
                place = partial(_place, sink, _map(file, plan.file_bytes[file]))
                for num_bytes in pool.map(place, placements):
                    progress(num_bytes)
        return LoadStats("mmap", plan.num_bytes, time.perf_counter() - began)


def _place(sink: WeightSink, view: memoryview, placement: Placement) -> int:
    tensor = placement.tensor
    sink.place(placement, view[tensor.offset : tensor.offset + tensor.num_bytes])
    return tensor.num_bytes


def _map(file: str, num_bytes: int) -> memoryview:
    """The whole file. A file that shrank would end the process at the first touch."""
    with Path(file).open("rb") as handle:
        mapped = FileMap(handle.fileno(), 0, flags=mmap.MAP_PRIVATE)
    if len(mapped) < num_bytes:
        raise WeightLoadError(
            f"truncated from {num_bytes} to {len(mapped)} bytes since it was opened", file=file
        )
    return memoryview(mapped)
