"""Memory that loading takes beside the parameters, counted."""

from __future__ import annotations

import threading


class HostMemory:
    """Bytes now and at most; from any thread."""

    def __init__(self) -> None:
        self._now = 0
        self._peak = 0
        self._lock = threading.Lock()

    def take(self, num_bytes: int) -> None:
        """So many more."""
        with self._lock:
            self._now += num_bytes
            self._peak = max(self._peak, self._now)

    def give(self, num_bytes: int) -> None:
        """So many fewer."""
        with self._lock:
            self._now -= num_bytes

    @property
    def peak(self) -> int:
        """The most at a time."""
        with self._lock:
            return self._peak
