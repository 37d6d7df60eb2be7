"""The blocks of one rank, read in order ahead of their use by threads."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from rtp_core.errors import WeightLoadError
from rtp_core.loading.blocks import Block
from rtp_core.loading.fill import fill, tensor_at
from rtp_core.loading.read_at import ReadAt

_PARTING_S = 10.0
"""Reads under way when a load ends have so long to end too."""


class OwnReads:
    """As many reads are under way as there are `buffers` that nobody uses.

    Threads that storage does not answer are left behind when a `with` is left.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        open_file: Callable[[str], ReadAt],
        buffers: Sequence[memoryview],
        stall_s: float,
    ) -> None:
        self._blocks = blocks
        self._open_file = open_file
        self._stall_s = stall_s
        self._results: list[Future[memoryview]] = [Future() for _ in blocks]
        self._free: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
        for buffer in buffers:
            self._free.put(buffer)
        self._count = len(buffers)
        self._next = 0
        self._taken = 0
        self._files: dict[str, ReadAt] = {}
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._beats = 0
        self._stalled = False
        self.bytes_read = 0

    def __enter__(self) -> Self:
        for _ in range(self._count):
            thread = threading.Thread(target=self._work, name="rtp-read", daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._next = len(self._blocks)
        for _ in self._threads:
            self._free.put(None)
        deadline = time.monotonic() + (0.0 if self._stalled else _PARTING_S)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if not any(thread.is_alive() for thread in self._threads):
            for file in self._files.values():
                file.close()

    def next(self) -> memoryview:
        """The next block's bytes. Raises what reading raised, or that storage stalled."""
        block, result = self._blocks[self._taken], self._results[self._taken]
        self._taken += 1
        while True:
            beats = self._beats
            try:
                return result.result(self._stall_s)
            except TimeoutError:
                if result.done():
                    raise
                if beats == self._beats:
                    break
        self._stalled = True
        raise WeightLoadError(
            f"the storage stalled: no byte came for {self._stall_s:g} s, at byte {block.begin}",
            file=block.file,
            tensor=tensor_at(block, block.begin),
            remedy="check the storage, or raise loading.stall_timeout_s",
        )

    def give_back(self, buffer: memoryview) -> None:
        """It may be read into again."""
        self._free.put(buffer)

    def _work(self) -> None:
        while (buffer := self._free.get()) is not None:
            with self._lock:
                number = self._next
                if number >= len(self._blocks):
                    return
                self._next += 1
            self._read(self._blocks[number], buffer, self._results[number])

    def _read(self, block: Block, buffer: memoryview, result: Future[memoryview]) -> None:
        try:
            with self._lock:
                if block.file not in self._files:
                    self._files[block.file] = self._open_file(block.file)
                reader = self._files[block.file]
            data = buffer[: block.end - block.begin]
            count = fill(reader, block, block.begin, data, self._beat)
            with self._lock:
                self.bytes_read += count
        except BaseException as error:  # noqa: BLE001 - it is raised by who waits
            result.set_exception(error)
        else:
            result.set_result(buffer)

    def _beat(self) -> None:
        self._beats += 1
