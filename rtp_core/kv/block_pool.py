"""Reference-counted blocks of one KV group.

Life: free -> filling (private) -> full -> published -> idle (kept, nobody uses it) -> free.
A full block is immutable. Idle blocks are evicted oldest first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from rtp_core.api import KVEvent, KVFormatId, KVQuality, KVSpace
from rtp_core.kv.block_hash import KEY_BYTES
from rtp_core.kv.prefix import Prefix
from rtp_core.kv.prefix_index import PrefixIndex, Published

Listener = Callable[[KVEvent], None]


class BlockPool:
    """Owns the references and the prefix index over a KVSpace.

    Without a `window` a block is of no use but after all blocks before it, so none is evicted
    before those that continue it. Blocks of a sliding window stand alone.
    """

    def __init__(
        self,
        group: int,
        space: KVSpace,
        block_size: int,
        window: int | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.block_size = block_size
        self.window = window
        self._group = group
        self._space = space
        self._listener = listener
        self._refs: dict[int, int] = {}
        self._published: dict[int, Published] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        self.index = PrefixIndex()
        self.evictions = 0

    @property
    def num_blocks(self) -> int:
        """Blocks that exist."""
        return self._space.num_blocks

    @property
    def num_available(self) -> int:
        """Blocks that `take` can hand out: free ones and idle ones."""
        return self._space.num_free + len(self._idle)

    @property
    def num_used(self) -> int:
        """Blocks some sequence holds."""
        return len(self._refs)

    @property
    def num_idle(self) -> int:
        """Blocks no sequence holds that can still be found."""
        return len(self._idle)

    def references(self, block: int) -> int:
        """Sequences that hold the block."""
        return self._refs.get(block, 0)

    def take(self, near: int | None) -> int:
        """A private block. The caller asked `num_available` first; IndexError otherwise."""
        block = self._space.allocate(KVFormatId.DENSE, near)
        if block is None:
            self._evict()
            block = self._space.allocate(KVFormatId.DENSE, near)
            if block is None:
                raise IndexError("no block is available")
        self._refs[block] = 1
        return block

    def hold(self, block: int) -> None:
        """One more reader of a published block; it leaves the idle list."""
        self._refs[block] = self._refs.get(block, 0) + 1
        self._idle.pop(block, None)

    def drop(self, block: int) -> None:
        """One reader less. A published block becomes idle, a private one free."""
        left = self._refs[block] - 1
        if left:
            self._refs[block] = left
            return
        del self._refs[block]
        if block in self._published:
            self._idle[block] = None
        else:
            self._space.free(block)

    def is_idle(self, block: int) -> bool:
        """Published, and nobody holds it."""
        return block in self._idle

    def first_visible(self, position: int) -> int:
        """Number of the first block of a sequence that a query at `position` can see."""
        if self.window is None:
            return 0
        return max(0, position - self.window + 1) // self.block_size

    def find(self, prefix: Prefix, quality: KVQuality) -> int | None:
        """A published block that ends this prefix and may be read at this quality."""
        entry = self.index.find(prefix, quality)
        return None if entry is None else entry.block

    def publish(self, entry: Published) -> None:
        """Let others find a full block; a block with the same content stays private."""
        if self.index.find(entry.prefix, KVQuality.EXACT) or entry.block in self._published:
            return
        self._published[entry.block] = entry
        self.index.add(entry)
        if self._listener is not None:
            self._listener(_stored(self._group, entry.prefix, self.block_size))

    def withdraw(self, prefix: Prefix) -> None:
        """Take a prefix out of the index; its idle blocks become free, held ones private."""
        for entry in self.index.variants(prefix):
            self._remove(entry)

    def clear(self) -> None:
        """Forget all idle blocks."""
        for block in list(self._idle):
            self._remove(self._published[block])
        if self._listener is not None:
            self._listener(KVEvent("cleared", self._group))

    def report(self) -> dict[str, Any]:
        """Counts of blocks, and the exclusive or of all published keys in hex.

        Two that hold the same prefixes have the same digest, in whatever order they came.
        Keys that nobody asked for before are computed now.
        """
        digest = 0
        for entry in self._published.values():
            digest ^= int.from_bytes(entry.prefix.key, "big")
        return {
            "total": self.num_blocks,
            "used": self.num_used,
            "published": len(self._published),
            "digest": f"{digest:0{2 * KEY_BYTES}x}",
        }

    def _evict(self) -> None:
        block = next(self._expendable(), None)
        if block is None:  # blocks in use continue every idle one
            block = next(iter(self._idle), None)
        if block is not None:
            self.evictions += 1
            self._remove(self._published[block])

    def _expendable(self) -> Iterator[int]:
        """Idle blocks whose loss costs no other published block, oldest first."""
        for block in self._idle:
            prefix = self._published[block].prefix
            if self.window is not None or not self.index.has_children(prefix):
                yield block

    def _remove(self, entry: Published) -> None:
        del self._published[entry.block]
        self.index.remove(entry)
        if self._listener is not None:
            self._listener(KVEvent("removed", self._group, (entry.prefix.key,)))
        if entry.block in self._idle:
            del self._idle[entry.block]
            self._space.free(entry.block)


def _stored(group: int, prefix: Prefix, block_size: int) -> KVEvent:
    parent = None if prefix.parent is None else prefix.parent.key
    return KVEvent("stored", group, (prefix.key,), parent, prefix.token_ids, block_size)
