"""Storage that answers slowly, on purpose: each request waits, all share one bandwidth.

A request is answered at ``max(asked + latency, link free + bytes / bandwidth)``: latencies of
requests under way at the same time overlap, their bytes queue. A sleep under one lock would
forbid the first, bandwidth without latency would prove nothing of the second.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from rtp_core.loading.read_at import LocalFile, ReadAt


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests answered, their bytes, and the most that were under way at once."""

    requests: int
    num_bytes: int
    most_at_once: int


class SlowLink:
    """One mount or server: `latency_s` a request, `bytes_per_s` shared by all of them.

    `clock` and `sleep` are seams; the arithmetic uses nothing else.
    """

    def __init__(
        self,
        latency_s: float,
        bytes_per_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._latency_s = latency_s
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_s = 0.0
        self._requests = self._num_bytes = self._under_way = self._most = 0

    def due_s(self, num_bytes: int) -> float:
        """When a request made now is answered, on the clock; its bytes are booked."""
        with self._lock:
            now_s = self._clock()
            self._free_s = max(self._free_s, now_s) + num_bytes / self._bytes_per_s
            self._requests += 1
            self._num_bytes += num_bytes
            return max(now_s + self._latency_s, self._free_s)

    def wait(self, num_bytes: int) -> None:
        """Make a request of so many bytes and return when it is answered."""
        due_s = self.due_s(num_bytes)
        with self._lock:
            self._under_way += 1
            self._most = max(self._most, self._under_way)
        self._sleep(max(0.0, due_s - self._clock()))
        with self._lock:
            self._under_way -= 1

    @property
    def counts(self) -> Counts:
        """Until now."""
        with self._lock:
            return Counts(self._requests, self._num_bytes, self._most)

    def limit_s(self, num_bytes: int) -> float:
        """No reader can have so many bytes sooner."""
        return max(self._latency_s, num_bytes / self._bytes_per_s)


class SlowFile:
    """A `ReadAt` whose reads go over a link, one request for at most `request_bytes` each."""

    def __init__(self, link: SlowLink, file: ReadAt, request_bytes: int) -> None:
        self._link = link
        self._file = file
        self._request_bytes = request_bytes

    @classmethod
    def opener(cls, link: SlowLink, request_bytes: int) -> Callable[[str], ReadAt]:
        """What loaders take as `open_file`: local files over this link."""
        return lambda path: cls(link, LocalFile(path), request_bytes)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """See ReadAt. A read of several requests has them all under way, as read-ahead does."""
        count = self._file.read_into(offset, buffer)
        sizes = [
            min(self._request_bytes, count - at) for at in range(0, count, self._request_bytes)
        ]
        for size in sizes[:-1]:
            self._link.due_s(size)
        self._link.wait(sizes[-1] if sizes else 0)
        return count

    def close(self) -> None:
        """See ReadAt."""
        self._file.close()
