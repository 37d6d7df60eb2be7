"""Raw blocks of one size class: which ids are free, and which one to take next."""

from __future__ import annotations

from rtp_core.api import KVFormatId

_STRIDE = 16
_TRIES = 8


class BlockSpace:
    """Hands out adjacent ids where it can, so that a sequence's keys are one run of slots.

    A sequence that starts gets a place `_STRIDE` blocks away from the last start, which
    leaves it room to grow in a run.
    """

    def __init__(self, num_blocks: int) -> None:
        self._num_blocks = num_blocks
        self._free = set(range(num_blocks))
        self._cursor = 0

    @property
    def num_blocks(self) -> int:
        """Blocks that exist."""
        return self._num_blocks

    @property
    def num_free(self) -> int:
        """Blocks that `allocate` can still hand out."""
        return len(self._free)

    def allocate(self, format_id: KVFormatId, near: int | None = None) -> int | None:
        """A block of the one size class; id `near` + 1 if it is free; None when full."""
        del format_id  # one size class
        if not self._free:
            return None
        wanted = -1 if near is None else near + 1
        if wanted not in self._free:
            wanted = self._start()
        self._free.discard(wanted)
        return wanted

    def free(self, block: int) -> None:
        """Give a block back. Raises ValueError if it is free already or unknown."""
        if block in self._free or not 0 <= block < self._num_blocks:
            raise ValueError(f"block {block} is not allocated")
        self._free.add(block)

    def _start(self) -> int:
        for _ in range(_TRIES):
            place = self._cursor
            self._cursor = (self._cursor + _STRIDE) % self._num_blocks
            if place in self._free:
                return place
        return next(iter(self._free))
