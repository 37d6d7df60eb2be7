"""The loader that looks at the storage first."""

from __future__ import annotations

import ctypes
import ctypes.util
import logging
import mmap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rtp_core.api import LoadStats, WeightPlan, WeightSink
from rtp_core.loading.file_order import FileOrderLoader
from rtp_core.loading.mmap_loader import MmapLoader
from rtp_core.loading.read_at import LocalFile

log = logging.getLogger("rtp.loading")
RESIDENT_ENOUGH = 0.9
SLOW_LATENCY_S = 0.0005
_PROBE_BYTES = 2**20
_PROBES = 4


@dataclass(frozen=True, slots=True)
class StorageProbe:
    """Share of pages in memory, and seconds a scattered read of 1 MiB took (median)."""

    resident_fraction: float
    latency_s: float

    @property
    def choice(self) -> str:
        """``mmap`` for cached or fast storage, ``file_order`` for slow storage."""
        if self.resident_fraction >= RESIDENT_ENOUGH or self.latency_s <= SLOW_LATENCY_S:
            return "mmap"
        return "file_order"


class AutoLoader:
    """Probes the largest file, logs the numbers, hands over."""

    def load(
        self, plan: WeightPlan, sink: WeightSink, progress: Callable[[int], None]
    ) -> LoadStats:
        """See `api.WeightLoader`."""
        largest = max(plan.file_bytes, key=lambda file: plan.file_bytes[file])
        probe = probe_storage(largest)
        log.info(
            "loader_chosen loader=%s resident=%.2f latency_ms=%.2f",
            probe.choice,
            probe.resident_fraction,
            probe.latency_s * 1000,
        )
        loader = MmapLoader() if probe.choice == "mmap" else FileOrderLoader()
        return loader.load(plan, sink, progress)


def probe_storage(file: str) -> StorageProbe:
    """A few milliseconds on local storage; a few round trips on slow storage."""
    resident = resident_fraction(Path(file))
    if resident >= RESIDENT_ENOUGH:
        return StorageProbe(resident, 0.0)
    size = Path(file).stat().st_size
    times: list[float] = []
    buffer = bytearray(min(_PROBE_BYTES, size))
    with LocalFile(file) as reader:
        for number in range(_PROBES):
            began = time.perf_counter()
            reader.read_into((size - len(buffer)) * number // _PROBES, memoryview(buffer))
            times.append(time.perf_counter() - began)
    return StorageProbe(resident, sorted(times)[_PROBES // 2])


def resident_fraction(path: Path) -> float:
    """Share of the file's pages in the page cache, by mincore(2); 0.0 if it cannot tell."""
    libc = ctypes.CDLL(None, use_errno=True)
    size = path.stat().st_size
    if size == 0 or not hasattr(libc, "mincore"):
        return 0.0
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE)
    try:
        pages = -(-size // mmap.PAGESIZE)
        flags = (ctypes.c_ubyte * pages)()
        start = ctypes.c_char.from_buffer(mapped)
        failed = libc.mincore(
            ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size), flags
        )
        del start
        return 0.0 if failed else sum(flag & 1 for flag in bytes(flags)) / pages
    finally:
        mapped.close()
