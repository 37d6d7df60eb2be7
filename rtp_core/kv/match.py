"""The longest cached prefix that all KV groups can serve together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rtp_core.api import KVQuality
from rtp_core.kv.block_pool import BlockPool
from rtp_core.kv.prefix import Prefix


@dataclass(frozen=True, slots=True)
class Match:
    """A prefix found: `num_blocks` of them, by group (None outside a window)."""

    num_blocks: int
    blocks: tuple[tuple[int | None, ...], ...]


def longest_match(pools: Sequence[BlockPool], chain: Sequence[Prefix], quality: KVQuality) -> Match:
    """Of `chain`, as much as every pool holds where the next token can see it."""
    found: list[list[int | None]] = []
    for pool in pools:
        found.append(_search(pool, chain, quality))
        chain = chain[: len(found[-1])]
    length = next(
        length
        for length in range(len(chain), -1, -1)
        if all(_covers(pool, blocks, length) for pool, blocks in zip(pools, found, strict=True))
    )
    return Match(
        length,
        tuple(_visible(pool, blocks, length) for pool, blocks in zip(pools, found, strict=True)),
    )


def _search(pool: BlockPool, chain: Sequence[Prefix], quality: KVQuality) -> list[int | None]:
    """Block by block; where all of the past is needed, up to the first one missing."""
    blocks: list[int | None] = []
    for prefix in chain:
        block = pool.find(prefix, quality)
        if block is None and pool.window is None:
            break
        blocks.append(block)
    return blocks


def _covers(pool: BlockPool, blocks: Sequence[int | None], length: int) -> bool:
    return pool.window is None or None not in blocks[_first_needed(pool, length) : length]


def _visible(pool: BlockPool, blocks: Sequence[int | None], length: int) -> tuple[int | None, ...]:
    first = _first_needed(pool, length)
    return (*[None] * first, *blocks[first:length])


def _first_needed(pool: BlockPool, length: int) -> int:
    """First of `length` blocks to hold; the last one always, as no table is empty."""
    return min(pool.first_visible(length * pool.block_size), max(0, length - 1))
