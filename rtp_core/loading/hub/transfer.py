"""How far a download is: a redrawn line on a terminal, one log line otherwise."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from rtp_core.observe.log import line

log = logging.getLogger("rtp.loading")
_REDRAW_S = 0.1
_MB = 1e6


class Transfer:
    """Counts bytes of all threads. A context manager around one download."""

    def __init__(
        self,
        name: str,
        total_bytes: int,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._total = total_bytes
        self._stream = stream if stream is not None else sys.stderr
        self._clock = clock
        self._lock = threading.Lock()
        self._began_s = clock()
        self._drawn_s = 0.0
        self.received_bytes = 0

    def __enter__(self) -> Self:
        log.info(line("model_download", id=self._name, bytes=self._total))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stream.isatty():
            self._draw()
            self._stream.write("\n")
        seconds = self._clock() - self._began_s
        event = "model_downloaded" if error is None else "model_download_stopped"
        log.info(line(event, id=self._name, bytes=self.received_bytes, seconds=seconds))

    def advance(self, num_bytes: int) -> None:
        """So many more bytes are here."""
        with self._lock:
            self.received_bytes += num_bytes
            now_s = self._clock()
            if self._stream.isatty() and now_s - self._drawn_s >= _REDRAW_S:
                self._drawn_s = now_s
                self._draw()

    def _draw(self) -> None:
        seconds = max(self._clock() - self._began_s, 1e-3)
        done = self.received_bytes / _MB
        self._stream.write(
            f"\rdownloading {self._name}  {done:.1f} of {self._total / _MB:.1f} MB  "
            f"{done / seconds:.1f} MB/s  {seconds:.0f} s "
        )
        self._stream.flush()
