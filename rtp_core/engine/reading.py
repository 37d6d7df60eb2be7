"""Weights read by a thread of their own, into tensors whose shapes others use meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from rtp_core.api import LoadStats, WeightLoader, WeightPlan
from rtp_core.engine.services import Stopwatch
from rtp_core.loading.load import load_weights
from rtp_core.loading.sink import Parameters, allocate
from rtp_core.observe.timeline import Phase


class AbandonedError(Exception):
    """The engine is not built any more."""


class Reading:
    """A load from `__enter__` on. Leaving by an exception ends it at the next tensor."""

    def __init__(
        self,
        plan: WeightPlan,
        loader: WeightLoader,
        device: str,
        progress: Callable[[int], None],
    ) -> None:
        self.destinations = allocate(plan, device)
        self._plan = plan
        self._loader = loader
        self._device = device
        self._progress = progress
        self._abandoned = threading.Event()
        self._loaded: Future[tuple[Parameters, LoadStats]] = Future()
        self._began_s = self._ended_s = 0.0

    def __enter__(self) -> Self:
        threading.Thread(target=self._read, name="rtp-weights", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._abandoned.set()

    def finish(self, watch: Stopwatch) -> tuple[Parameters, LoadStats]:
        """Wait for the rest. Raises what `load_weights` does."""
        parameters, stats = self._loaded.result()
        watch.beside(
            Phase(
                "weights",
                self._ended_s - self._began_s,
                stats.bytes_read,
                stats.strategy,
                self._began_s,
            )
        )
        watch.lap("weights-rest")
        return parameters, stats

    def _read(self) -> None:
        self._began_s = time.monotonic()
        try:
            loaded = load_weights(
                self._plan, self._loader, self._device, self._advance, into=self.destinations
            )
            self._ended_s = time.monotonic()
            self._loaded.set_result(loaded)
        except BaseException as error:  # noqa: BLE001 - it is raised by who waits
            self._loaded.set_exception(error)

    def _advance(self, num_bytes: int) -> None:
        if self._abandoned.is_set():
            raise AbandonedError
        self._progress(num_bytes)
