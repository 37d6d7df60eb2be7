"""File-order loading: each file is read once, front to back, with many reads in flight.

Neighbouring tensors share a buffer and a read, large ones are read in several; reads are
issued in file order, a bounded number ahead. Storage that answers slowly is kept busy.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from rtp_core.api import LoadStats, Placement, WeightPlan, WeightSink
from rtp_core.errors import WeightLoadError
from rtp_core.loading.order import by_file
from rtp_core.loading.read_at import LocalFile, ReadAt

READ_BYTES = 4 * 2**20
IN_FLIGHT = 16
MAX_GAP_BYTES = 64 * 2**10
"""Bytes nobody wants, read along rather than making another request."""


@dataclass(frozen=True, slots=True)
class _Span:
    """Neighbouring tensors: one buffer, one read unless a single tensor is larger."""

    file: str
    begin: int
    end: int
    placements: tuple[Placement, ...]


@dataclass(frozen=True, slots=True)
class _Read:
    """A read under way; `completes` is the span whose last part it is, `data` its buffer."""

    future: Future[None]
    completes: _Span | None
    data: memoryview


class FileOrderLoader:
    """`open_file` is the seam to other storage; `in_flight` reads are kept under way.

    Memory besides the parameters: `in_flight` reads and the largest tensor among them.
    """

    def __init__(
        self,
        open_file: Callable[[str], ReadAt] = LocalFile.open,
        read_bytes: int = READ_BYTES,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        self._open_file = open_file
        self._read_bytes = read_bytes
        self._in_flight = in_flight

    def load(
        self, plan: WeightPlan, sink: WeightSink, progress: Callable[[int], None]
    ) -> LoadStats:
        """See `api.WeightLoader`."""
        began = time.perf_counter()
        num_bytes = 0
        flying: deque[_Read] = deque()
        # The pool is left first, after its last read: none outlives its file.
        with ExitStack() as files, ThreadPoolExecutor(self._in_flight, "rtp-read") as pool:
            for read in self._issue(plan, files, pool):
                flying.append(read)
                if len(flying) == self._in_flight:
                    num_bytes += _land(flying.popleft(), sink, progress)
            while flying:
                num_bytes += _land(flying.popleft(), sink, progress)
        return LoadStats("file_order", num_bytes, time.perf_counter() - began)

    def _issue(
        self, plan: WeightPlan, files: ExitStack, pool: ThreadPoolExecutor
    ) -> Iterator[_Read]:
        """Submits one read each time the next one is asked for."""
        reader: ReadAt | None = None
        file = ""
        for span in _spans(plan, self._read_bytes):
            if reader is None or span.file != file:
                reader, file = self._open_file(span.file), span.file
                files.callback(reader.close)
            data = memoryview(bytearray(span.end - span.begin))
            for at in range(0, len(data), self._read_bytes):
                part = data[at : at + self._read_bytes]
                future = pool.submit(_read, reader, file, span.begin + at, part)
                last = at + self._read_bytes >= len(data)
                yield _Read(future, span if last else None, data)


def _spans(plan: WeightPlan, read_bytes: int) -> Iterator[_Span]:
    for file, placements in by_file(plan).items():
        group: list[Placement] = []
        begin = end = 0
        for placement in placements:
            offset = placement.tensor.offset
            stop = offset + placement.tensor.num_bytes
            full = offset >= end and stop - begin > read_bytes
            if group and (full or offset - end > MAX_GAP_BYTES):
                yield _Span(file, begin, end, tuple(group))
                group = []
            if not group:
                begin = end = offset
            group.append(placement)
            end = max(end, stop)
        yield _Span(file, begin, end, tuple(group))


def _land(read: _Read, sink: WeightSink, progress: Callable[[int], None]) -> int:
    """Wait for a read; when it completes a span, place its tensors. Bytes of the span or 0."""
    read.future.result()
    span = read.completes
    if span is None:
        return 0
    for placement in span.placements:
        at = placement.tensor.offset - span.begin
        sink.place(placement, read.data[at : at + placement.tensor.num_bytes])
        progress(placement.tensor.num_bytes)
    return span.end - span.begin


def _read(reader: ReadAt, file: str, offset: int, buffer: memoryview) -> None:
    """Fill `buffer`. A read that fails or brings nothing is tried once more."""
    done = 0
    failed = False
    while done < len(buffer):
        try:
            count = reader.read_into(offset + done, buffer[done:])
            reason = "the file ends here"
        except OSError as error:
            count, reason = 0, str(error)
        if count == 0 and failed:
            raise WeightLoadError(
                f"reading at byte {offset + done} failed: {reason}",
                file=file,
                remedy="check the storage and that the file is complete",
            )
        failed = count == 0
        done += count
