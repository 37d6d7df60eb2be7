"""What was found out about the storage of a model, and the loader that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from rtp_core.api import WeightLoader
from rtp_core.loading.advised_file import AdvisedFile
from rtp_core.loading.direct_file import ALIGNMENT, DirectFile
from rtp_core.loading.file_order import FileOrderLoader
from rtp_core.loading.file_system import is_remote
from rtp_core.loading.mmap_loader import MmapLoader
from rtp_core.loading.read_at import LocalFile, ReadAt

RESIDENT_ENOUGH = 0.9
SLOW_LATENCY_S = 0.0005
CACHED_LATENCY_S = 0.00003
"""A small read that is quicker came out of memory."""


class How(StrEnum):
    """Through the page cache, the same with all requests of a read at once, or past it."""

    BUFFERED = "buffered"
    ADVISED = "advised"
    DIRECT = "direct"


_OPEN: Mapping[How, Callable[[str], ReadAt]] = {
    How.BUFFERED: LocalFile.open,
    How.ADVISED: AdvisedFile.open,
    How.DIRECT: DirectFile.open,
}


@dataclass(frozen=True, slots=True)
class Stream:
    """Reads of file-order loading: bytes of one, how many are under way, and how."""

    read_bytes: int
    in_flight: int
    how: How = How.BUFFERED

    def loader(self, stall_s: float) -> FileOrderLoader:
        """For local paths."""
        alignment = ALIGNMENT if self.how is How.DIRECT else 1
        return FileOrderLoader(
            _OPEN[self.how], self.read_bytes, self.in_flight, alignment=alignment, stall_s=stall_s
        )

    def __str__(self) -> str:
        return f"{self.in_flight} {self.how} reads of {self.read_bytes // 2**20} MiB"


LOCAL = Stream(4 * 2**20, 16)
REMOTE = Stream(4 * 2**20, 32, How.ADVISED)
TO_DEVICE = Stream(16 * 2**20, 12)
"""Few and large operations: threads that copy wait for one another's turn in the interpreter."""
DIRECT_TO_DEVICE = Stream(8 * 2**20, 16, How.DIRECT)


@dataclass(frozen=True, slots=True)
class StorageProbe:
    """Share of pages in memory (None: unknown), seconds of a small scattered read, file system."""

    resident_fraction: float | None
    latency_s: float
    file_system: str = ""

    @property
    def is_cached(self) -> bool:
        """Whether bytes come from memory."""
        if self.resident_fraction is None:
            return self.latency_s <= CACHED_LATENCY_S
        return self.resident_fraction >= RESIDENT_ENOUGH

    @property
    def is_slow(self) -> bool:
        """Whether every request takes its time."""
        return is_remote(self.file_system) or self.latency_s > SLOW_LATENCY_S

    def stream(self, device: str) -> Stream:
        """How to stream from here."""
        if self.is_slow and not self.is_cached:
            return REMOTE
        if device == "cpu":
            return LOCAL
        return TO_DEVICE if self.is_cached else DIRECT_TO_DEVICE

    def choice(self, device: str) -> str:
        """``mmap`` for cached or fast storage of a CPU's model, ``file_order`` for all else."""
        return "mmap" if device == "cpu" and (self.is_cached or not self.is_slow) else "file_order"

    def loader(self, device: str, stall_s: float) -> WeightLoader:
        """The one of `choice`."""
        if self.choice(device) == "mmap":
            return MmapLoader()
        return self.stream(device).loader(stall_s)

    def reason(self, device: str) -> str:
        """The numbers, in words."""
        held = self.resident_fraction
        said = ["pages in memory: unknown" if held is None else f"{held:.0%} of pages in memory"]
        if not self.is_cached or held is None:
            said.append(f"a small read took {self.latency_s * 1000:.2f} ms")
        if self.file_system:
            said.append(f"on {self.file_system}")
        if self.choice(device) == "file_order":
            said.append(str(self.stream(device)))
        return ", ".join(said)
