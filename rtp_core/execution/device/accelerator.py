"""What the runner needs of a device beside tensors: pinned memory, marks in its work, capture."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

import torch

from rtp_core.execution.faults import free_memory, lost_device

log = logging.getLogger("rtp.engine")


class Span(Protocol):
    """A piece of the device's queue of work, from `Accelerator.begin` to `end`."""

    def end(self) -> None:
        """It reaches to here."""
        ...

    def wait(self) -> float:
        """Until it is done; its seconds on the device. Raises what the device reports."""
        ...


class Accelerator(Protocol):
    """A device and its queue of work."""

    @property
    def device(self) -> str:
        """Torch's name of it."""
        ...

    @property
    def most_in_flight(self) -> int:
        """Steps worth queueing."""
        ...

    def host_buffer(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Memory of the host that the device reads and writes by itself."""
        ...

    def begin(self) -> Span:
        """A piece of work that begins behind everything queued so far."""
        ...

    def lost(self) -> str | None:
        """Why no work can be done any more; None if it can. Waits for all that is queued."""
        ...

    def free(self) -> None:
        """Give back memory that is kept for later."""
        ...

    def prepare(self, run: Callable[[], object], key: str) -> int:
        """Compile what `run` needs, side by side; how many kernels. Its results mean nothing.

        Nothing is done if it was done before for `key`, which names all that `run` depends on.
        """
        ...

    def capture(self, run: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        """Record what `run` queues; what replays it, and the tensor it fills.

        What has run before is only recorded.
        """
        ...

    def free_bytes(self) -> int:
        """Memory of the device that nothing has taken."""
        ...


class CudaSpan:
    """Between two CUDA events."""

    def __init__(self) -> None:
        self._began, self._ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._began.record()

    def end(self) -> None:
        """Records the second event."""
        self._ended.record()

    def wait(self) -> float:
        """Sleeps in the driver; the interpreter's lock is released."""
        self._ended.synchronize()
        return self._began.elapsed_time(self._ended) / 1e3


class CudaAccelerator:
    """One GPU; graphs share a memory pool. Up to `processes` compile kernels."""

    most_in_flight = 2

    def __init__(self, device: str, processes: int) -> None:
        self.device = device
        self._processes = processes
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()

    def host_buffer(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Page-locked."""
        return torch.zeros(shape, dtype=dtype, pin_memory=True)

    def begin(self) -> Span:
        """On the current stream."""
        return CudaSpan()

    def lost(self) -> str | None:
        """What every call reports from now on."""
        return lost_device(self.device)

    def free(self) -> None:
        """Torch's cache."""
        free_memory(self.device)

    def prepare(self, run: Callable[[], object], key: str) -> int:
        """A dry run beside worker processes."""
        from rtp_kernels.gpu.precompile import compile_all, known, remember

        if known(key):
            return 0
        count, complete = compile_all(run, self._processes)
        torch.cuda.synchronize()
        if complete:
            remember(key)
        return count

    def capture(self, run: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        """A CUDA graph. Kernels cannot be loaded while one is recorded: `run` runs before if it
        turns out to have some that were never launched."""
        from rtp_kernels.gpu.precompile import missing

        late: list[object] = []
        with missing(late.append):
            graph, out = self._record(run)
        if late:
            log.info("kernels_loaded_late count=%d", len(set(late)))
            graph.reset()
            run()
            graph, out = self._record(run)
        return graph.replay, _unowned(out)

    def free_bytes(self) -> int:
        """As the driver has it, once the queue is empty."""
        torch.cuda.synchronize()
        return torch.cuda.mem_get_info()[0]

    def _record(self, run: Callable[[], torch.Tensor]) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        """Without the empty caches that `torch.cuda.graph` wants each time."""
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.stream(self._stream):
            graph.capture_begin(pool=self._pool)
            try:
                out = run()
            finally:
                graph.capture_end()
        return graph, out


def _unowned(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory, which a later capture in the pool may use too: what a program fills is
    read before the next program runs, so all of them can fill one place."""
    storage = tensor.untyped_storage()
    borrowed = torch._C._construct_storage_from_data_pointer(  # pyright: ignore
        storage.data_ptr(), tensor.device, storage.nbytes()
    )
    alias = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return alias.set_(borrowed, tensor.storage_offset(), tensor.shape, tensor.stride())


class HostSpan:
    """Everything is done as soon as it is queued."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._seconds = 0.0

    def end(self) -> None:
        """The host's own time."""
        self._seconds = time.perf_counter() - self._began

    def wait(self) -> float:
        """At once."""
        return self._seconds


class HostAccelerator:
    """The CPU in the part of a device, so that the runner's logic can be tested without one."""

    def __init__(self, most_in_flight: int = 2) -> None:
        self.device = "cpu"
        self.most_in_flight = most_in_flight

    def host_buffer(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Ordinary memory."""
        return torch.zeros(shape, dtype=dtype)

    def begin(self) -> Span:
        """Timed by the host."""
        return HostSpan()

    def lost(self) -> str | None:
        """Never."""
        return None

    def free(self) -> None:
        """Nothing is kept."""

    def prepare(self, run: Callable[[], object], key: str) -> int:
        """Nothing is compiled."""
        del run, key
        return 0

    def capture(self, run: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        """Replaying runs it again, into the same tensor."""
        out = run()
        return lambda: (out.copy_(run()), None)[1], out

    def free_bytes(self) -> int:
        """Programs of the host take no memory of their own."""
        return 0
