"""The KV cache as the scheduler sees it: all groups together, one sequence at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rtp_core.api import KVGroup, KVQuality, KVSpace, MediaSpan
from rtp_core.kv.block_hash import BlockHasher
from rtp_core.kv.block_pool import BlockPool, Listener
from rtp_core.kv.prefix_index import Published


@dataclass(slots=True, eq=False)
class SequenceBlocks:
    """What one sequence holds: a block table a group, and the keys of its full blocks.

    `num_published` blocks have been offered to the index; `num_dropped[g]` leading blocks of
    a window group are out of sight and given back (their entries repeat a live block).
    """

    root: bytes
    tenant: str
    quality: KVQuality
    media: tuple[MediaSpan, ...]
    tables: tuple[list[int], ...]
    num_dropped: list[int]
    keys: list[bytes] = field(default_factory=list)
    num_published: int = 0
    capacity: int = 0


@dataclass(frozen=True, slots=True)
class Match:
    """A prefix found: `num_blocks` of them, by group (None outside a window)."""

    num_blocks: int
    blocks: tuple[tuple[int | None, ...], ...]


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """`fingerprint` of the model roots the keys; `watermark` is kept free at admission."""

    block_size: int
    fingerprint: str = ""
    prefix_caching: bool = True
    watermark: float = 0.05


class KVCache:
    """Matching, growth, publication and release. Bookkeeping only; no torch."""

    def __init__(
        self,
        groups: Sequence[KVGroup],
        spaces: Sequence[KVSpace],
        hasher: BlockHasher,
        settings: CacheSettings,
        listener: Listener | None = None,
    ) -> None:
        block_size = settings.block_size
        watermark = settings.watermark
        self.block_size = block_size
        self.prefix_caching = settings.prefix_caching
        self._hasher = hasher
        self._fingerprint = settings.fingerprint
        self._windows = tuple(group.sliding_window for group in groups)
        self._pools = tuple(
            BlockPool(number, space, block_size, listener) for number, space in enumerate(spaces)
        )
        self._reserve = tuple(int(pool.num_blocks * watermark) for pool in self._pools)

    @property
    def pools(self) -> tuple[BlockPool, ...]:
        """One a KV group."""
        return self._pools

    @property
    def num_blocks(self) -> int:
        """Blocks of all groups."""
        return sum(pool.num_blocks for pool in self._pools)

    @property
    def num_blocks_used(self) -> int:
        """Blocks held by sequences."""
        return sum(pool.num_used for pool in self._pools)

    @property
    def usage(self) -> float:
        """Share of blocks held by sequences, 0 … 1."""
        return self.num_blocks_used / self.num_blocks

    @property
    def max_tokens(self) -> int:
        """Longest sequence that fits when it is alone."""
        return min(pool.num_blocks for pool in self._pools) * self.block_size

    def open(
        self, tenant: str, salt: str, quality: KVQuality, media: tuple[MediaSpan, ...] = ()
    ) -> SequenceBlocks:
        """State of a sequence that holds nothing yet."""
        root = self._hasher.root(tenant, salt, self._fingerprint)
        count = len(self._pools)
        tables = tuple([] for _ in range(count))
        return SequenceBlocks(root, f"{tenant}\0{salt}", quality, media, tables, [0] * count)

    def lookup(self, blocks: SequenceBlocks, token_ids: Sequence[int]) -> Match:
        """Longest prefix all groups hold, leaving at least the last token to compute."""
        if not self.prefix_caching:
            return Match(0, tuple(() for _ in self._pools))
        most = (len(token_ids) - 1) // self.block_size
        self._hasher.extend(blocks.keys, blocks.root, token_ids, blocks.media)
        chains = self._find(blocks, token_ids, most)
        num_blocks = next(
            length
            for length in range(self._full_prefix(chains, most), -1, -1)
            if self._windows_cover(chains, length)
        )
        return Match(num_blocks, tuple(self._visible(chains, num_blocks)))

    def acquire(self, blocks: SequenceBlocks, match: Match) -> None:
        """Hold the blocks of a match; the sequence must hold nothing."""
        for number, (pool, found) in enumerate(zip(self._pools, match.blocks, strict=True)):
            live = [block for block in found if block is not None]
            for block in live:
                pool.hold(block)
            blocks.num_dropped[number] = len(found) - len(live)
            filler = live[:1] * (len(found) - len(live))
            blocks.tables[number].extend([*filler, *live])
        blocks.num_published = match.num_blocks
        blocks.capacity = match.num_blocks * self.block_size

    def fits(self, match: Match, num_tokens: int, *, reserve: bool) -> bool:
        """Whether the blocks beyond a match can be had, above the watermark if `reserve`."""
        wanted = -(-num_tokens // self.block_size) - match.num_blocks
        for pool, found, kept in zip(self._pools, match.blocks, self._reserve, strict=True):
            idle = sum(1 for block in found if block is not None and pool.is_idle(block))
            if pool.num_available - idle - wanted < (kept if reserve else 0):
                return False
        return True

    def try_grow(self, blocks: SequenceBlocks, num_tokens: int) -> bool:
        """Make room for `num_tokens` in every group, or change nothing."""
        if num_tokens <= blocks.capacity:
            return True
        wanted = -(-num_tokens // self.block_size)
        missing = wanted - len(blocks.tables[0])
        if any(pool.num_available < missing for pool in self._pools):
            return False
        for pool, table in zip(self._pools, blocks.tables, strict=True):
            for _ in range(missing):
                table.append(pool.take(table[-1] if table else None))
        blocks.capacity = wanted * self.block_size
        return True

    def publish(self, blocks: SequenceBlocks, token_ids: Sequence[int], num_computed: int) -> None:
        """Offer the full blocks below `num_computed`; their content is on its way."""
        full = num_computed // self.block_size
        if full <= blocks.num_published:
            return
        if self.prefix_caching:
            self._hasher.extend(blocks.keys, blocks.root, token_ids, blocks.media)
            for number in range(blocks.num_published, full):
                self._publish_one(blocks, token_ids, number)
        blocks.num_published = full

    def withdraw(self, blocks: SequenceBlocks, num_kept: int) -> None:
        """Un-publish blocks from `num_kept` on: the step that filled them failed."""
        for pool, table in zip(self._pools, blocks.tables, strict=True):
            for block in table[num_kept:]:
                if pool.references(block) == 1:
                    pool.withdraw(block)

    def drop_outside_windows(self, blocks: SequenceBlocks, num_computed: int) -> None:
        """Give back blocks of window groups that no later query can see."""
        for number, window in enumerate(self._windows):
            if window is None:
                continue
            table, pool = blocks.tables[number], self._pools[number]
            unseen = max(0, num_computed - window + 1) // self.block_size
            for index in range(blocks.num_dropped[number], min(unseen, len(table) - 1)):
                pool.drop(table[index])
                table[index] = table[-1]
                blocks.num_dropped[number] = index + 1

    def release(self, blocks: SequenceBlocks) -> None:
        """Give everything back, last blocks first so that prefixes outlive their ends."""
        for number, (pool, table) in enumerate(zip(self._pools, blocks.tables, strict=True)):
            for block in reversed(table[blocks.num_dropped[number] :]):
                pool.drop(block)
            table.clear()
            blocks.num_dropped[number] = 0
        blocks.num_published = 0
        blocks.capacity = 0

    def reset(self) -> bool:
        """Forget idle blocks; False (and nothing done) while blocks are in use."""
        if self.num_blocks_used:
            return False
        for pool in self._pools:
            pool.clear()
        return True

    def _find(
        self, blocks: SequenceBlocks, token_ids: Sequence[int], most: int
    ) -> list[list[int | None]]:
        reader = (blocks.tenant, blocks.quality)
        keys = blocks.keys[:most]
        return [pool.find_chain(keys, blocks.root, token_ids, reader) for pool in self._pools]

    def _full_prefix(self, chains: Sequence[Sequence[int | None]], most: int) -> int:
        length = most
        for chain, window in zip(chains, self._windows, strict=True):
            if window is None:
                held = next((at for at, block in enumerate(chain) if block is None), len(chain))
                length = min(length, held)
        return length

    def _windows_cover(self, chains: Sequence[Sequence[int | None]], length: int) -> bool:
        return all(
            None not in chain[self._first_visible(window, length) : length]
            for chain, window in zip(chains, self._windows, strict=True)
        )

    def _visible(
        self, chains: Sequence[Sequence[int | None]], length: int
    ) -> list[tuple[int | None, ...]]:
        visible = []
        for chain, window in zip(chains, self._windows, strict=True):
            first = self._first_visible(window, length)
            visible.append((*[None] * first, *chain[first:length]))
        return visible

    def _first_visible(self, window: int | None, length: int) -> int:
        """First block that the token after `length` blocks can see."""
        if window is None:
            return 0
        return max(0, length * self.block_size - window + 1) // self.block_size

    def _publish_one(self, blocks: SequenceBlocks, token_ids: Sequence[int], number: int) -> None:
        begin = number * self.block_size
        tokens = tuple(token_ids[begin : begin + self.block_size])
        parent = blocks.keys[number - 1] if number else blocks.root
        for index, pool in enumerate(self._pools):
            if number >= blocks.num_dropped[index]:
                block = blocks.tables[index][number]
                pool.publish(Published(block, blocks.keys[number], parent, tokens, blocks.tenant))
