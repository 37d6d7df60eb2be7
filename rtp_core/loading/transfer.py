"""From buffers in memory to destinations: at once on a CPU, on a stream of its own on a GPU."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from rtp_core.loading.page_locked import page_locked

Fence = Callable[[], None]
"""Returns once all that was submitted before has taken its bytes out of the buffers."""


class Transfer(Protocol):
    """One thread's. The seam where tests put a device that is late."""

    def buffer(self, num_bytes: int) -> torch.Tensor:
        """uint8 [num_bytes] in host memory, aligned to pages."""
        ...

    def submit(self, work: Callable[[], None]) -> None:
        """Work that copies from buffers; when it returns, they may still be read."""
        ...

    def fence(self) -> Fence | None:
        """None if buffers are free already."""
        ...


class HostTransfer:
    """Work is done when it is submitted."""

    def buffer(self, num_bytes: int) -> torch.Tensor:
        """See Transfer."""
        memory = np.empty(num_bytes + mmap.PAGESIZE, dtype=np.uint8)
        skip = -memory.ctypes.data % mmap.PAGESIZE
        return torch.from_numpy(memory[skip : skip + num_bytes])

    def submit(self, work: Callable[[], None]) -> None:
        """See Transfer."""
        work()

    def fence(self) -> Fence | None:
        """See Transfer."""
        return None


class CudaTransfer:
    """Copies out of pinned memory on a stream of its own, beside other threads' and kernels.

    What the allocating thread had submitted when `ready` was recorded comes first.
    """

    def __init__(self, device: torch.device, ready: torch.cuda.Event) -> None:
        self._stream = torch.cuda.Stream(device)
        self._stream.wait_event(ready)

    def buffer(self, num_bytes: int) -> torch.Tensor:
        """See Transfer."""
        return page_locked(num_bytes, self._stream.synchronize)

    def submit(self, work: Callable[[], None]) -> None:
        """See Transfer."""
        with torch.cuda.stream(self._stream):
            work()

    def fence(self) -> Fence | None:
        """See Transfer."""
        event = torch.cuda.Event(blocking=True)  # who waits leaves its core to the readers
        event.record(self._stream)
        return event.synchronize


def transfers_to(device: str) -> Callable[[], Transfer]:
    """Makes one for every thread that asks. Destinations are allocated already."""
    if not device.startswith("cuda"):
        return HostTransfer
    place = torch.device(device)
    with torch.cuda.device(place):
        ready = torch.cuda.Event()
        ready.record()
    return lambda: CudaTransfer(place, ready)


def give_back_buffers(device: str) -> None:
    """Pinned memory that nobody uses, to the system."""
    if device.startswith("cuda"):
        _empty_host_cache()


def _empty_host_cache() -> None:
    """torch.accelerator has it from 2.12 on; before, only its C++ side."""
    empty = getattr(torch.accelerator, "empty_host_cache", None)
    if empty is None:
        empty = torch._C._host_emptyCache  # pyright: ignore[reportAttributeAccessIssue]
    empty()
