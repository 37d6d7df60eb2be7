"""The KV cache as the scheduler sees it: all groups together, one sequence at a time."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rtp_core.api import KVGroup, KVQuality, KVSpace, MediaSpan
from rtp_core.kv.block_hash import BlockHasher
from rtp_core.kv.block_pool import BlockPool, Listener
from rtp_core.kv.match import Match, longest_match
from rtp_core.kv.prefix import Prefix, PrefixTree
from rtp_core.kv.prefix_index import Published


@dataclass(slots=True, eq=False)
class SequenceBlocks:
    """What one sequence holds: a block table a group, and the prefixes of its full blocks.

    `capacity` tokens have a block in every group. `num_published` blocks have been offered to
    the index; `num_dropped[g]` leading blocks of a window group are out of sight and given back
    (their entries repeat a block that is held).
    """

    root: Prefix
    quality: KVQuality
    media: tuple[MediaSpan, ...]
    tables: tuple[list[int], ...]
    num_dropped: list[int]
    chain: list[Prefix] = field(default_factory=list)
    num_published: int = 0
    capacity: int = 0


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """`fingerprint` of the model roots the keys; `watermark` is kept free at admission.

    `max_step_tokens` bounds what one step computes of a sequence, and with it what a sequence
    holds in a window group; None = anything.
    """

    block_size: int
    fingerprint: str = ""
    prefix_caching: bool = True
    watermark: float = 0.05
    max_step_tokens: int | None = None


def blocks_in_sight(window: int | None, max_step_tokens: int | None, block_size: int) -> int:
    """Most blocks a sequence holds at once: of the tokens of a step and those they see."""
    if window is None or max_step_tokens is None:
        return sys.maxsize
    return -(-(window - 1 + max_step_tokens) // block_size) + 1


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
        self.block_size = settings.block_size
        self.prefix_caching = settings.prefix_caching
        self._fingerprint = settings.fingerprint
        self._tree = PrefixTree(hasher)
        self._pools = tuple(
            BlockPool(number, space, self.block_size, group.sliding_window, listener)
            for number, (group, space) in enumerate(zip(groups, spaces, strict=True))
        )
        self._most_held = tuple(
            blocks_in_sight(pool.window, settings.max_step_tokens, self.block_size)
            for pool in self._pools
        )
        self._reserve = tuple(int(pool.num_blocks * settings.watermark) for pool in self._pools)
        self.has_windows = any(pool.window is not None for pool in self._pools)

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
    def num_blocks_idle(self) -> int:
        """Blocks no sequence holds that still keep a prefix."""
        return sum(pool.num_idle for pool in self._pools)

    @property
    def usage(self) -> float:
        """Share of blocks held by sequences, 0 … 1."""
        return self.num_blocks_used / self.num_blocks

    @property
    def max_tokens(self) -> int:
        """Longest sequence that fits when it is alone; a wide enough window has no bound."""
        bounds = [
            pool.num_blocks * self.block_size
            for pool, most in zip(self._pools, self._most_held, strict=True)
            if pool.num_blocks < most
        ]
        return min(bounds, default=sys.maxsize)

    def open(
        self, tenant: str, salt: str, quality: KVQuality, media: tuple[MediaSpan, ...] = ()
    ) -> SequenceBlocks:
        """State of a sequence that holds nothing yet."""
        root = self._tree.root(tenant, salt, self._fingerprint)
        tables = tuple([] for _ in self._pools)
        return SequenceBlocks(root, quality, media, tables, [0] * len(tables))

    def lookup(
        self, blocks: SequenceBlocks, token_ids: Sequence[int], *, reuse: bool = True
    ) -> Match:
        """Longest prefix all groups hold, leaving at least the last token to compute.

        Without `reuse` it is empty: everything is to be computed.
        """
        if self.prefix_caching:
            self._tree.extend(blocks.chain, blocks.root, token_ids, blocks.media)
        if not (self.prefix_caching and reuse):
            return Match(0, tuple(() for _ in self._pools))
        most = (len(token_ids) - 1) // self.block_size
        return longest_match(self._pools, blocks.chain[:most], blocks.quality)

    def acquire(self, blocks: SequenceBlocks, match: Match) -> None:
        """Hold the blocks of a match; the sequence must hold nothing."""
        for number, (pool, found) in enumerate(zip(self._pools, match.blocks, strict=True)):
            live = [block for block in found if block is not None]
            for block in live:
                pool.hold(block)
            num_dropped = len(found) - len(live)
            blocks.num_dropped[number] = num_dropped
            blocks.tables[number].extend([*live[:1] * num_dropped, *live])
        blocks.num_published = match.num_blocks
        blocks.capacity = match.num_blocks * self.block_size

    def fits(self, match: Match, num_tokens: int, *, reserve: bool) -> bool:
        """Whether the blocks beyond a match can be had, above the watermark if `reserve`.

        Of a window group, as many as a sequence ever holds at once.
        """
        missing = -(-num_tokens // self.block_size) - match.num_blocks
        for number, (pool, found) in enumerate(zip(self._pools, match.blocks, strict=True)):
            held = [block for block in found if block is not None]
            idle = sum(pool.is_idle(block) for block in held)
            wanted = min(missing, self._most_held[number] - len(held))
            kept = self._reserve[number] if reserve else 0
            if pool.num_available - idle - wanted < kept:
                return False
        return True

    def reserve(self, blocks: SequenceBlocks, num_tokens: int) -> bool:
        """Make room for `num_tokens` in the groups that keep everything, or change nothing."""
        return self._grow(blocks, num_tokens, windows=False)

    def try_grow(self, blocks: SequenceBlocks, num_tokens: int) -> bool:
        """Make room for `num_tokens` in every group, or change nothing."""
        return num_tokens <= blocks.capacity or self._grow(blocks, num_tokens, windows=True)

    def _grow(self, blocks: SequenceBlocks, num_tokens: int, *, windows: bool) -> bool:
        wanted = -(-num_tokens // self.block_size)
        growing = [
            (pool, table)
            for pool, table in zip(self._pools, blocks.tables, strict=True)
            if len(table) < wanted and (windows or pool.window is None)
        ]
        if any(pool.num_available < wanted - len(table) for pool, table in growing):
            return False
        for pool, table in growing:
            for _ in range(wanted - len(table)):
                table.append(pool.take(table[-1] if table else None))
        blocks.capacity = min(len(table) for table in blocks.tables) * self.block_size
        return True

    def publish(self, blocks: SequenceBlocks, token_ids: Sequence[int], num_computed: int) -> None:
        """Offer the full blocks below `num_computed`."""
        full = num_computed // self.block_size
        if full <= blocks.num_published:
            return
        if self.prefix_caching:
            chain = blocks.chain
            self._tree.extend(chain, blocks.root, token_ids, blocks.media)
            for group, pool in enumerate(self._pools):
                table = blocks.tables[group]
                first = max(blocks.num_published, blocks.num_dropped[group])
                for number in range(first, full):
                    pool.publish(Published(table[number], chain[number]))
        blocks.num_published = full

    def withdraw(self, blocks: SequenceBlocks) -> None:
        """Un-publish every prefix of a sequence whose step failed.

        Unusable numbers may come from any block it read, so all of them are suspect. It may
        have given its blocks back already.
        """
        for prefix in blocks.chain:
            for pool in self._pools:
                pool.withdraw(prefix)

    def drop_outside_windows(self, blocks: SequenceBlocks, num_computed: int) -> None:
        """Give back blocks of window groups that no later query can see."""
        for number, pool in enumerate(self._pools):
            table, first = blocks.tables[number], blocks.num_dropped[number]
            unseen = min(pool.first_visible(num_computed), len(table) - 1)
            if unseen > first:
                for block in table[first:unseen]:
                    pool.drop(block)
                table[:unseen] = table[unseen : unseen + 1] * unseen
                blocks.num_dropped[number] = unseen

    def release(self, blocks: SequenceBlocks) -> None:
        """Give everything back, last blocks first so that prefixes outlive their ends."""
        for number, (pool, table) in enumerate(zip(self._pools, blocks.tables, strict=True)):
            for block in reversed(table[blocks.num_dropped[number] :]):
                pool.drop(block)
            table.clear()
            blocks.num_dropped[number] = 0
        blocks.num_published = 0
        blocks.capacity = 0

    def report(self) -> dict[str, Any]:
        """Counts a group, and a digest of the keys that its prefixes are known by."""
        return {"block_size": self.block_size, "groups": [pool.report() for pool in self._pools]}

    def reset(self) -> bool:
        """Forget idle blocks; False (and nothing done) while blocks are in use."""
        if self.num_blocks_used:
            return False
        for pool in self._pools:
            pool.clear()
        return True
