"""A thread's share of the ring: buffers used in turn, each only once it is free again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rtp_core.api import Lane
from rtp_core.loading.host_memory import HostMemory


@dataclass(slots=True)
class Slot:
    """`fence` waits until its last bytes have been taken out."""

    data: memoryview
    fence: Callable[[], None] | None = None

    def wait(self) -> None:
        """Until it is free."""
        if self.fence is not None:
            self.fence()
            self.fence = None


class Slots:
    """At most `count` of `num_bytes`, allocated when they are first needed."""

    def __init__(self, lane: Lane, num_bytes: int, count: int, memory: HostMemory) -> None:
        self._lane = lane
        self._num_bytes = num_bytes
        self._count = count
        self._memory = memory
        self._slots: list[Slot] = []
        self._next = 0

    def take(self, num_bytes: int) -> Slot:
        """A free one; what is larger than a slot gets memory of its own."""
        if num_bytes > self._num_bytes:
            self._memory.take(num_bytes)
            return Slot(self._lane.buffer(num_bytes))
        if len(self._slots) < self._count and self._next == len(self._slots):
            self._memory.take(self._num_bytes)
            self._slots.append(Slot(self._lane.buffer(self._num_bytes)))
        slot = self._slots[self._next]
        self._next = (self._next + 1) % self._count
        slot.wait()
        return slot

    def used(self, slot: Slot) -> None:
        """Pieces were put from it."""
        slot.fence = self._lane.fence()
        if len(slot.data) > self._num_bytes:
            slot.wait()
            self._memory.give(len(slot.data))

    def drain(self) -> None:
        """Until all are free."""
        for slot in self._slots:
            slot.wait()
