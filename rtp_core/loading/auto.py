"""The loader that looks at the storage first."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from rtp_core.api import LoadStats, WeightPlan, WeightSink
from rtp_core.loading.file_order import STALL_S, FileOrderLoader
from rtp_core.loading.file_system import file_system, is_remote
from rtp_core.loading.read_at import LocalFile, ReadAt
from rtp_core.loading.residency import resident_fraction
from rtp_core.loading.storage import RESIDENT_ENOUGH, SLOW_LATENCY_S, StorageProbe

log = logging.getLogger("rtp.loading")
_PROBE_BYTES = 4096
_PROBES = 8
_MOST_FILES = 16


class AutoLoader:
    """Probes the files, logs the numbers, hands over. The parameters by position are seams.

    With an `open_file` of its own it streams in 4 MiB, whatever the storage.
    """

    def __init__(
        self,
        open_file: Callable[[str], ReadAt] | None = None,
        resident: Callable[[Path], float | None] = resident_fraction,
        clock: Callable[[], float] = time.perf_counter,
        *,
        device: str = "cpu",
        stall_s: float = STALL_S,
    ) -> None:
        self._open_file = open_file
        self._resident = resident
        self._clock = clock
        self._device = device
        self._stall_s = stall_s

    def load(
        self, plan: WeightPlan, sink: WeightSink, progress: Callable[[int], None]
    ) -> LoadStats:
        """See `api.WeightLoader`."""
        probe = self.probe(plan.file_bytes)
        choice = probe.choice(self._device)
        log.info(
            "loader_chosen loader=%s resident=%s latency_ms=%.2f file_system=%s",
            choice,
            "unknown" if probe.resident_fraction is None else f"{probe.resident_fraction:.2f}",
            probe.latency_s * 1000,
            probe.file_system or "unknown",
        )
        if self._open_file is not None and choice == "file_order":
            loader = FileOrderLoader(self._open_file, stall_s=self._stall_s)
        else:
            loader = probe.loader(self._device, self._stall_s)
        return loader.load(plan, sink, progress)

    def probe(self, file_bytes: Mapping[str, int]) -> StorageProbe:
        """Microseconds on local storage, a few round trips on slow storage."""
        largest = max(file_bytes, key=lambda name: file_bytes[name])
        kind = file_system(Path(largest))
        resident = self._resident_of(file_bytes)
        if resident is not None and resident >= RESIDENT_ENOUGH:
            return StorageProbe(resident, 0.0, kind)
        enough = 1 if is_remote(kind) else 2
        latency_s = self._latency_s(largest, file_bytes[largest], enough)
        return StorageProbe(resident, latency_s, kind)

    def _resident_of(self, file_bytes: Mapping[str, int]) -> float | None:
        """Of all bytes; of the largest files if there are many."""
        files = sorted(file_bytes, key=lambda name: file_bytes[name], reverse=True)[:_MOST_FILES]
        shares = [self._resident(Path(file)) for file in files]
        total = sum(file_bytes[file] for file in files)
        known = [share for share in shares if share is not None]
        if len(known) < len(shares) or not total:
            return None
        return sum(known[at] * file_bytes[file] for at, file in enumerate(files)) / total

    def _latency_s(self, file: str, num_bytes: int, enough: int) -> float:
        """The slowest of some reads, without `enough` - 1 that may have been accidents.

        Others may have hit pages in memory. After `enough` slow ones storage is not asked again.
        """
        times: list[float] = []
        buffer = memoryview(bytearray(min(_PROBE_BYTES, num_bytes)))
        reader = (self._open_file or LocalFile.scattered)(file)
        try:
            for number in range(_PROBES):
                began = self._clock()
                reader.read_into((num_bytes - len(buffer)) * number // _PROBES, buffer)
                times.append(self._clock() - began)
                if sum(one > SLOW_LATENCY_S for one in times) == enough:
                    break
        finally:
            reader.close()
        return sorted(times)[-enough]
