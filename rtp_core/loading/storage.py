"""What was found out about the storage of a model, and the loader that follows from it."""

from __future__ import annotations

from dataclasses import dataclass

from rtp_core.api import WeightLoader
from rtp_core.loading.direct_file import ALIGNMENT, DirectFile
from rtp_core.loading.file_order import FileOrderLoader
from rtp_core.loading.file_system import is_remote
from rtp_core.loading.mmap_loader import MmapLoader

RESIDENT_ENOUGH = 0.9
SLOW_LATENCY_S = 0.0005
CACHED_LATENCY_S = 0.00003
"""A small read that is quicker came out of memory."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Reads of file-order loading: bytes of one, how many are under way, past the cache or not."""

    read_bytes: int
    in_flight: int
    direct: bool = False

    def loader(self, stall_s: float) -> FileOrderLoader:
        """For local paths."""
        if not self.direct:
            return FileOrderLoader(
                read_bytes=self.read_bytes, in_flight=self.in_flight, stall_s=stall_s
            )
        return FileOrderLoader(
            DirectFile.open, self.read_bytes, self.in_flight, alignment=ALIGNMENT, stall_s=stall_s
        )

    def __str__(self) -> str:
        kind = "direct" if self.direct else "buffered"
        return f"{self.in_flight} {kind} reads of {self.read_bytes // 2**20} MiB"


LOCAL = Stream(4 * 2**20, 16)
REMOTE = Stream(16 * 2**20, 32)
TO_DEVICE = Stream(8 * 2**20, 16)
"""Fewer and larger operations: a device takes 8 MiB in 0.15 ms."""
DIRECT_TO_DEVICE = Stream(8 * 2**20, 16, direct=True)


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
