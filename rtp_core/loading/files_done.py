"""Each file of weights is logged once its last byte is placed."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from rtp_core.api import (
    Lane,
    LoadStats,
    PieceSink,
    Placement,
    WeightLoader,
    WeightPlan,
    WeightSink,
)
from rtp_core.observe.log import line

log = logging.getLogger("rtp.loading")


class TellingFiles:
    """`api.WeightLoader` around another one."""

    def __init__(self, loader: WeightLoader) -> None:
        self._loader = loader

    def load(
        self, plan: WeightPlan, sink: WeightSink, progress: Callable[[int], None]
    ) -> LoadStats:
        """See `api.WeightLoader`."""
        count = _Count(plan)
        pieces = isinstance(sink, PieceSink)
        told = _Pieces(count, sink, sink) if pieces else _Tensors(count, sink)
        return self._loader.load(plan, told, progress)


class _Count:
    """Bytes by file, from any thread."""

    def __init__(self, plan: WeightPlan) -> None:
        self._left: Counter[str] = Counter()
        for placement in plan.placements:
            self._left[placement.tensor.file] += placement.tensor.num_bytes
        self._whole = dict(self._left)
        self._began_s = time.monotonic()
        self._lock = threading.Lock()

    def placed(self, placement: Placement, num_bytes: int) -> None:
        """So many bytes of a tensor."""
        file = placement.tensor.file
        with self._lock:
            self._left[file] -= num_bytes
            done = num_bytes > 0 and not self._left[file]
        if done:
            seconds = time.monotonic() - self._began_s
            num_bytes = self._whole[file]
            log.info(line("file_loaded", file=Path(file).name, bytes=num_bytes, seconds=seconds))


class _Tensors:
    """Passes everything on to `sink`."""

    def __init__(self, count: _Count, sink: WeightSink) -> None:
        self._count = count
        self._sink = sink

    def place(self, placement: Placement, data: memoryview) -> None:
        """See `api.WeightSink`."""
        self._sink.place(placement, data)
        self._count.placed(placement, placement.tensor.num_bytes)


class _Pieces(_Tensors):
    """The same before a sink that takes pieces."""

    def __init__(self, count: _Count, sink: WeightSink, pieces: PieceSink) -> None:
        super().__init__(count, sink)
        self._pieces = pieces
        self.unit = pieces.unit

    def lane(self) -> Lane:
        """See `api.PieceSink`."""
        return _Lane(self._count, self._pieces.lane())


class _Lane:
    """`api.Lane`."""

    def __init__(self, count: _Count, lane: Lane) -> None:
        self._count = count
        self._lane = lane
        self.buffer, self.room, self.fence = lane.buffer, lane.room, lane.fence

    def put(self, placement: Placement, begin: int, data: memoryview) -> None:
        self._lane.put(placement, begin, data)
        self._count.placed(placement, data.nbytes)

    def filled(self, placement: Placement, num_bytes: int) -> None:
        self._lane.filled(placement, num_bytes)
        self._count.placed(placement, num_bytes)
