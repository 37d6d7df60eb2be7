"""File-order loading: each file is read once, front to back, with many reads in flight.

Blocks are issued in file order into a bounded ring of buffers; a tensor is placed when its
last block has arrived. Storage that answers slowly is kept busy by the reads behind.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from rtp_core.api import LoadStats, Placement, WeightPlan, WeightSink
from rtp_core.errors import WeightLoadError
from rtp_core.loading.order import by_file
from rtp_core.loading.read_at import LocalFile, ReadAt

BLOCK_BYTES = 4 * 2**20
IN_FLIGHT = 16


@dataclass(frozen=True, slots=True)
class _Block:
    file: str
    begin: int
    end: int


class FileOrderLoader:
    """`open_file` is the seam to other storage; `in_flight` reads are kept under way."""

    def __init__(
        self,
        open_file: Callable[[str], ReadAt] = LocalFile.open,
        block_bytes: int = BLOCK_BYTES,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        self._open_file = open_file
        self._block_bytes = block_bytes
        self._in_flight = in_flight

    def load(
        self, plan: WeightPlan, sink: WeightSink, progress: Callable[[int], None]
    ) -> LoadStats:
        """See `api.WeightLoader`."""
        began = time.perf_counter()
        for file, placements in by_file(plan).items():
            reader = self._open_file(file)
            try:
                for placement, data in self._tensors(reader, file, placements):
                    sink.place(placement, data)
                    progress(placement.tensor.num_bytes)
            finally:
                reader.close()
        return LoadStats("file_order", plan.num_bytes, time.perf_counter() - began)

    def _tensors(
        self, reader: ReadAt, file: str, placements: Sequence[Placement]
    ) -> Iterator[tuple[Placement, memoryview]]:
        """Whole tensors in file order, assembled from blocks as these arrive."""
        waiting = deque(placements)
        pending = bytearray()
        base = placements[0].tensor.offset
        for block, data in self._blocks(reader, file, placements):
            if not pending:
                base = block.begin
            pending += data
            while waiting and waiting[0].tensor.offset + waiting[0].tensor.num_bytes <= block.end:
                tensor = waiting[0].tensor
                at = tensor.offset - base
                with memoryview(pending) as view:
                    yield waiting.popleft(), view[at : at + tensor.num_bytes]
            done = max(0, (waiting[0].tensor.offset if waiting else block.end) - base)
            del pending[:done]
            base += done

    def _blocks(
        self, reader: ReadAt, file: str, placements: Sequence[Placement]
    ) -> Iterator[tuple[_Block, bytearray]]:
        """Blocks in order; `in_flight` reads run ahead of the one handed out."""
        blocks = deque(self._cut(file, placements))
        flying: deque[tuple[_Block, Future[bytearray]]] = deque()
        with ThreadPoolExecutor(self._in_flight, thread_name_prefix="rtp-read") as pool:
            try:
                while blocks or flying:
                    while blocks and len(flying) < self._in_flight:
                        block = blocks.popleft()
                        flying.append((block, pool.submit(_read, reader, block)))
                    block, future = flying.popleft()
                    yield block, future.result()
            finally:
                for _, future in flying:
                    future.cancel()

    def _cut(self, file: str, placements: Sequence[Placement]) -> Iterator[_Block]:
        first = placements[0].tensor.offset
        last = max(one.tensor.offset + one.tensor.num_bytes for one in placements)
        aligned = first - first % self._block_bytes
        for begin in range(aligned, last, self._block_bytes):
            yield _Block(file, max(begin, first), min(begin + self._block_bytes, last))


def _read(reader: ReadAt, block: _Block) -> bytearray:
    """The block's bytes. One retry after an error; an early end of file is an error."""
    buffer = bytearray(block.end - block.begin)
    with memoryview(buffer) as view:
        done = 0
        failed = False
        while done < len(buffer):
            try:
                count = reader.read_into(block.begin + done, view[done:])
            except OSError as error:
                if failed:
                    raise _lost(block, done, str(error)) from error
                failed = True
                continue
            if count == 0:
                raise _lost(block, done, "the file ends here")
            done += count
    return buffer


def _lost(block: _Block, done: int, reason: str) -> WeightLoadError:
    return WeightLoadError(
        f"reading at byte {block.begin + done} failed: {reason}",
        file=block.file,
        remedy="check the storage and that the file is complete",
    )
