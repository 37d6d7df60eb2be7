"""Raw blocks of one size class: which ids are free, and which one to take next."""

from __future__ import annotations

from rtp_core.api import KVFormatId

_STRIDE = 16
_TRIES = 8


class BlockSpace:
    """Hands out adjacent ids where it can, so that a sequence's keys are one run of slots.

    A sequence that starts, or cannot grow in its run, gets a place `_STRIDE` blocks away from
    the last start, which leaves it room to grow in a run.
    """

    def __init__(self, num_blocks: int) -> None:
        self._num_blocks = num_blocks
        self._is_free = bytearray(b"\1" * num_blocks)  # searched at the speed of memchr
        self._num_free = num_blocks
        self._cursor = 0

    @property
    def num_blocks(self) -> int:
        """Blocks that exist."""
        return self._num_blocks

    @property
    def num_free(self) -> int:
        """Blocks that `allocate` can still hand out."""
        return self._num_free

    def is_free(self, block: int) -> bool:
        """Whether `allocate` may hand out this block."""
        return bool(self._is_free[block])

    def allocate(self, format_id: KVFormatId, near: int | None = None) -> int | None:
        """A block of the one size class; id `near` + 1 if it is free; None when full."""
        del format_id  # one size class
        if not self._num_free:
            return None
        wanted = self._num_blocks if near is None else near + 1
        if wanted >= self._num_blocks or not self._is_free[wanted]:
            wanted = self._start()
        self._is_free[wanted] = 0
        self._num_free -= 1
        return wanted

    def free(self, block: int) -> None:
        """Give a block back. Raises ValueError if it is free already or unknown."""
        if not 0 <= block < self._num_blocks or self._is_free[block]:
            raise ValueError(f"block {block} is not allocated")
        self._is_free[block] = 1
        self._num_free += 1

    def _start(self) -> int:
        for _ in range(_TRIES):
            place = self._cursor
            self._cursor = (self._cursor + _STRIDE) % self._num_blocks
            if self._is_free[place]:
                return place
        place = self._is_free.find(1, self._cursor)
        return place if place >= 0 else self._is_free.find(1)
