"""Each file of weights is logged once its last tensor is placed."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from rtp_core.api import LoadStats, Placement, WeightLoader, WeightPlan, WeightSink
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
        return self._loader.load(plan, _FilesDone(plan, sink), progress)


class _FilesDone:
    """Passes everything on to `sink`, from any thread."""

    def __init__(self, plan: WeightPlan, sink: WeightSink) -> None:
        self._sink = sink
        self._left = Counter(placement.tensor.file for placement in plan.placements)
        self._num_bytes: Counter[str] = Counter()
        self._began_s = time.monotonic()
        self._lock = threading.Lock()

    def place(self, placement: Placement, data: memoryview) -> None:
        """See `api.WeightSink`."""
        self._sink.place(placement, data)
        file = placement.tensor.file
        with self._lock:
            self._num_bytes[file] += placement.tensor.num_bytes
            self._left[file] -= 1
            whole = not self._left[file]
        if whole:
            seconds = time.monotonic() - self._began_s
            name, num_bytes = Path(file).name, self._num_bytes[file]
            log.info(line("file_loaded", file=name, bytes=num_bytes, seconds=seconds))
