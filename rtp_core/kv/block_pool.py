"""Reference-counted blocks of one KV group.

Life: free -> filling (private) -> full -> published -> idle (kept, nobody uses it) -> free.
A full block is immutable. Idle blocks are evicted oldest first, never before a published
block that continues them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from rtp_core.api import KVEvent, KVFormatId, KVQuality, KVSpace
from rtp_core.kv.prefix_index import PrefixIndex, Published

Listener = Callable[[KVEvent], None]


class BlockPool:
    """Owns the references and the prefix index over a KVSpace."""

    def __init__(
        self, group: int, space: KVSpace, block_size: int, listener: Listener | None
    ) -> None:
        self._group = group
        self._space = space
        self._block_size = block_size
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

    def publish(self, entry: Published) -> None:
        """Let others find a full block; a block with the same content stays private."""
        same = self.index.find(
            entry.key, entry.parent, entry.token_ids, entry.tenant, KVQuality.EXACT
        )
        if same is not None or entry.block in self._published:
            return
        self._published[entry.block] = entry
        self.index.add(entry)
        self._tell(
            KVEvent(
                "stored",
                self._group,
                (entry.key,),
                entry.parent,
                entry.token_ids,
                self._block_size,
            )
        )

    def withdraw(self, block: int) -> None:
        """Take a block out of the index: its content turned out to be wrong."""
        entry = self._published.pop(block, None)
        if entry is None:
            return
        self.index.remove(entry)
        self._tell(KVEvent("removed", self._group, (entry.key,)))
        if self._idle.pop(block, "held") is None:
            self._space.free(block)

    def clear(self) -> None:
        """Forget all idle blocks."""
        for block in list(self._idle):
            self.withdraw(block)
        self._tell(KVEvent("cleared", self._group))

    def find_chain(
        self,
        keys: Sequence[bytes],
        root: bytes,
        token_ids: Sequence[int],
        reader: tuple[str, KVQuality],
    ) -> list[int | None]:
        """Published block for each key, None where there is none. `reader` = tenant, quality."""
        found: list[int | None] = []
        size = self._block_size
        parent = root
        for number, key in enumerate(keys):
            tokens = tuple(token_ids[number * size : (number + 1) * size])
            entry = self.index.find(key, parent, tokens, *reader)
            found.append(None if entry is None else entry.block)
            parent = key
        return found

    def _evict(self) -> None:
        for block in self._idle:
            if not self.index.has_children(self._published[block]):
                self.evictions += 1
                self.withdraw(block)
                return
        if self._idle:  # only a cycle of colliding keys leads here; any victim is right
            self.withdraw(next(iter(self._idle)))

    def _tell(self, event: KVEvent) -> None:
        if self._listener is not None:
            self._listener(event)
