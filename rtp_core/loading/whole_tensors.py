"""Pieces for a sink that takes whole tensors only: each is put together in memory of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from rtp_core.api import Placement, WeightSink
from rtp_core.loading.host_memory import HostMemory
from rtp_core.loading.transfer import HostTransfer


@dataclass(slots=True)
class _Begun:
    """A tensor of which some bytes are there."""

    data: memoryview
    missing: int


class WholeTensors:
    """`api.PieceSink` before an `api.WeightSink`. A piece that is a whole tensor is not copied."""

    def __init__(self, sink: WeightSink, memory: HostMemory) -> None:
        self._sink = sink
        self._memory = memory
        self._begun: dict[int, _Begun] = {}
        self._lock = threading.Lock()

    def unit(self, placement: Placement) -> int:
        """See `api.PieceSink`."""
        del placement
        return 1

    def lane(self) -> WholeTensorLane:
        """See `api.PieceSink`."""
        return WholeTensorLane(self)

    def room(self, placement: Placement, begin: int, end: int) -> memoryview | None:
        """Where a part of a tensor is put together; None for all of it."""
        num_bytes = placement.tensor.num_bytes
        if end - begin == num_bytes:
            return None
        with self._lock:
            begun = self._begun.get(id(placement))
            if begun is None:
                self._memory.take(num_bytes)
                begun = _Begun(memoryview(bytearray(num_bytes)), num_bytes)
                self._begun[id(placement)] = begun
            return begun.data[begin:end]

    def filled(self, placement: Placement, num_bytes: int) -> None:
        """Bytes of a room are there; with the last ones the tensor is placed."""
        with self._lock:
            begun = self._begun[id(placement)]
            begun.missing -= num_bytes
            if begun.missing:
                return
            del self._begun[id(placement)]
        self._sink.place(placement, begun.data)
        self._memory.give(placement.tensor.num_bytes)

    def whole(self, placement: Placement, data: memoryview) -> None:
        """All bytes of a tensor, in a buffer."""
        self._sink.place(placement, data)


class WholeTensorLane:
    """`api.Lane`."""

    def __init__(self, tensors: WholeTensors) -> None:
        self._tensors = tensors
        self._transfer = HostTransfer()
        self.room = tensors.room
        self.filled = tensors.filled

    def buffer(self, num_bytes: int) -> memoryview:
        """See `api.Lane`."""
        return self._transfer.buffer(num_bytes).numpy().data

    def put(self, placement: Placement, begin: int, data: memoryview) -> None:
        """See `api.Lane`."""
        room = self._tensors.room(placement, begin, begin + data.nbytes)
        if room is None:
            self._tensors.whole(placement, data)
        else:
            room[:] = data
            self._tensors.filled(placement, data.nbytes)

    def fence(self) -> Callable[[], None] | None:
        """See `api.Lane`."""
        return None
