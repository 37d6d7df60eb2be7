"""The loader that looks at the storage first."""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rtp_core.api import LoadStats, WeightPlan, WeightSink
from rtp_core.loading.file_order import FileOrderLoader
from rtp_core.loading.mmap_loader import MmapLoader
from rtp_core.loading.read_at import LocalFile, ReadAt

log = logging.getLogger("rtp.loading")
RESIDENT_ENOUGH = 0.9
SLOW_LATENCY_S = 0.0005
_PROBE_BYTES = 4096
_PROBES = 8


@dataclass(frozen=True, slots=True)
class StorageProbe:
    """Share of a file's pages in memory, and seconds that a small scattered read took."""

    resident_fraction: float
    latency_s: float

    @property
    def choice(self) -> str:
        """``mmap`` for cached or fast storage, ``file_order`` for slow storage."""
        if self.resident_fraction >= RESIDENT_ENOUGH or self.latency_s <= SLOW_LATENCY_S:
            return "mmap"
        return "file_order"


class AutoLoader:
    """Probes the largest file, logs the numbers, hands over. The parameters are seams."""

    def __init__(
        self,
        open_file: Callable[[str], ReadAt] = LocalFile.open,
        resident: Callable[[Path], float] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._open_file = open_file
        self._resident = resident or resident_fraction
        self._clock = clock

    def load(
        self, plan: WeightPlan, sink: WeightSink, progress: Callable[[int], None]
    ) -> LoadStats:
        """See `api.WeightLoader`."""
        file = max(plan.file_bytes, key=lambda name: plan.file_bytes[name])
        probe = self.probe(file, plan.file_bytes[file])
        log.info(
            "loader_chosen loader=%s resident=%.2f latency_ms=%.2f",
            probe.choice,
            probe.resident_fraction,
            probe.latency_s * 1000,
        )
        loader = MmapLoader() if probe.choice == "mmap" else FileOrderLoader(self._open_file)
        return loader.load(plan, sink, progress)

    def probe(self, file: str, num_bytes: int) -> StorageProbe:
        """Microseconds on local storage, a few round trips on slow storage."""
        resident = self._resident(Path(file))
        if resident >= RESIDENT_ENOUGH:
            return StorageProbe(resident, 0.0)
        times: list[float] = []
        buffer = memoryview(bytearray(min(_PROBE_BYTES, num_bytes)))
        reader = self._open_file(file)
        try:
            for number in range(_PROBES):
                began = self._clock()
                reader.read_into((num_bytes - len(buffer)) * number // _PROBES, buffer)
                times.append(self._clock() - began)
        finally:
            reader.close()
        # Some probes may hit pages in memory: the second slowest stands for those that do not.
        return StorageProbe(resident, sorted(times)[-2])


def resident_fraction(path: Path) -> float:
    """Share of the file's pages in the page cache, by mincore(2); 0.0 if it cannot tell.

    The kernel calls every page resident for a file that the caller may not write.
    """
    libc = ctypes.CDLL(None)
    size = path.stat().st_size
    if size == 0 or not hasattr(libc, "mincore") or not os.access(path, os.W_OK):
        return 0.0
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE)
    pages = np.zeros(-(-len(mapped) // mmap.PAGESIZE), dtype=np.uint8)
    start = np.frombuffer(mapped, dtype=np.uint8).ctypes.data
    failed = libc.mincore(
        ctypes.c_void_p(start), ctypes.c_size_t(len(mapped)), ctypes.c_void_p(pages.ctypes.data)
    )
    return 0.0 if failed else float((pages & 1).mean())
