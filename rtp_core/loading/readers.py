"""Threads that read blocks in turn and place what they brought, watched by the caller's thread."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rtp_core.api import Lane, PieceSink
from rtp_core.errors import WeightLoadError
from rtp_core.loading.blocks import Block
from rtp_core.loading.fill import fill, tensor_at
from rtp_core.loading.host_memory import HostMemory
from rtp_core.loading.read_at import ReadAt
from rtp_core.loading.slots import Slot, Slots

SLOTS_A_THREAD = 2
"""One is read into while a device copies from the other."""
_WATCHES = 8
"""Looks at the clock in the time after which storage counts as stalled."""
_PARTING_S = 10.0
"""Reads under way when a load fails have so long to end."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How blocks are read: `slot_bytes` hold any of them but oversized ones, and its alignment."""

    open_file: Callable[[str], ReadAt]
    threads: int
    slot_bytes: int
    alignment: int
    stall_s: float


class Readers:
    """One run over some blocks. Reads begin in the order of the blocks."""

    def __init__(
        self, reading: Reading, blocks: Iterator[Block], sink: PieceSink, memory: HostMemory
    ) -> None:
        self._reading = reading
        self._blocks = blocks
        self._sink = sink
        self._memory = memory
        self._files: dict[str, ReadAt] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._events: queue.SimpleQueue[Block | BaseException | None] = queue.SimpleQueue()
        self._under_way: dict[int, tuple[float, Block]] = {}
        self._beat_s = time.monotonic()
        self._bytes_read = 0

    def run(self, progress: Callable[[int], None]) -> int:
        """Bytes read. Raises what a thread raised, what `progress` does, or that nothing moves.

        Reads that storage does not answer are left behind, with the files they read.
        """
        threads = [
            threading.Thread(target=self._work, name="rtp-read", daemon=True)
            for _ in range(self._reading.threads)
        ]
        self._beat_s = time.monotonic()
        for thread in threads:
            thread.start()
        try:
            self._follow(len(threads), progress)
        finally:
            self._end(threads)
        return self._bytes_read

    def _follow(self, left: int, progress: Callable[[int], None]) -> None:
        while left:
            try:
                event = self._events.get(timeout=self._reading.stall_s / _WATCHES)
            except queue.Empty:
                self._refuse_stall()
                continue
            if event is None:
                left -= 1
            elif isinstance(event, BaseException):
                raise event
            else:
                progress(event.placed_bytes)

    def _refuse_stall(self) -> None:
        if time.monotonic() - self._beat_s < self._reading.stall_s:
            return
        with self._lock:
            _, block = min(self._under_way.values(), default=(0.0, None), key=lambda one: one[0])
        file, tensor, at = ("", "", 0) if block is None else _place(block)
        raise WeightLoadError(
            f"the storage stalled: no byte came for {self._reading.stall_s:g} s, at byte {at}",
            file=file,
            tensor=tensor,
            remedy="check the storage, or raise loading.stall_timeout_s",
        )

    def _end(self, threads: list[threading.Thread]) -> None:
        """Files are closed when nobody reads them any more."""
        self._stop.set()
        deadline = min(self._beat_s + self._reading.stall_s, time.monotonic() + _PARTING_S)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            return
        for file in self._files.values():
            file.close()

    def _work(self) -> None:
        try:
            self._read_blocks(self._sink.lane())
        except BaseException as error:  # noqa: BLE001 - it is raised by who follows
            self._stop.set()
            self._events.put(error)
        else:
            self._events.put(None)

    def _read_blocks(self, lane: Lane) -> None:
        slots = Slots(lane, self._reading.slot_bytes, SLOTS_A_THREAD, self._memory)
        me = threading.get_ident()
        while (taken := self._take(me)) is not None:
            block, reader = taken
            try:
                self._bring(block, reader, lane, slots)
            finally:
                with self._lock:
                    del self._under_way[me]
            self._beat()
            self._events.put(block)
        slots.drain()

    def _take(self, me: int) -> tuple[Block, ReadAt] | None:
        """The next block and its file, opened for its first one."""
        with self._lock:
            block = None if self._stop.is_set() else next(self._blocks, None)
            if block is None:
                return None
            if block.file not in self._files:
                self._files[block.file] = self._reading.open_file(block.file)
            self._under_way[me] = (time.monotonic(), block)
            return block, self._files[block.file]

    def _bring(self, block: Block, reader: ReadAt, lane: Lane, slots: Slots) -> None:
        first = block.pieces[0]
        if len(block.pieces) == 1 and self._reading.alignment == 1:
            room = lane.room(first.placement, first.begin, first.end)
            if room is not None:
                self._count(fill(reader, block, block.begin, room, self._beat))
                lane.filled(first.placement, len(room))
                return
        alignment = self._reading.alignment
        start = block.begin // alignment * alignment
        end = -(-block.end // alignment) * alignment
        slot = slots.take(end - start)
        self._count(fill(reader, block, start, slot.data[: end - start], self._beat))
        _put(block, start, lane, slot)
        slots.used(slot)

    def _count(self, num_bytes: int) -> None:
        with self._lock:
            self._bytes_read += num_bytes

    def _beat(self) -> None:
        self._beat_s = time.monotonic()


def _put(block: Block, start: int, lane: Lane, slot: Slot) -> None:
    for piece in block.pieces:
        at = piece.placement.tensor.offset - start
        lane.put(piece.placement, piece.begin, slot.data[at + piece.begin : at + piece.end])


def _place(block: Block) -> tuple[str, str, int]:
    return block.file, tensor_at(block, block.begin), block.begin
