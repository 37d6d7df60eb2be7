from __future__ import annotations

import pytest

from rtp_core.api import KVEvent, KVFormatId, KVQuality
from rtp_core.kv.block_hash import BlockHasher
from rtp_core.kv.block_pool import BlockPool
from rtp_core.kv.block_space import BlockSpace
from rtp_core.kv.prefix import PrefixTree
from rtp_core.kv.prefix_index import PrefixIndex, Published

TREE = PrefixTree(BlockHasher(bytes(32), 2))
ROOT = TREE.root("", "", "m")


def chain_of(*tokens):
    chain = []
    TREE.extend(chain, ROOT, tokens)
    return chain


def make(num_blocks, window=None):
    events = []
    return BlockPool(3, BlockSpace(num_blocks), 2, window, events.append), events


def hold(pool, chain):
    """Take and publish blocks for a chain, as one sequence would."""
    blocks = [pool.take(None) for _ in chain]
    for block, prefix in zip(blocks, chain, strict=True):
        pool.publish(Published(block, prefix))
    return blocks


def drop(pool, blocks):
    for block in reversed(blocks):
        pool.drop(block)


def cached(pool, chain):
    return [pool.find(prefix, KVQuality.EXACT) is not None for prefix in chain]


def test_a_published_block_outlives_its_sequence_and_can_be_held_again():
    pool, _ = make(2)
    (prefix,) = chain_of(1, 2)
    (block,) = hold(pool, [prefix])
    pool.drop(block)
    assert (pool.num_used, pool.num_available, pool.is_idle(block)) == (0, 2, True)
    assert pool.find(prefix, KVQuality.EXACT) == block
    pool.hold(block)
    assert (pool.references(block), pool.num_available, pool.is_idle(block)) == (1, 1, False)


def test_a_private_block_is_free_when_its_sequence_leaves():
    pool, _ = make(1)
    block = pool.take(None)
    assert pool.num_available == 0
    pool.drop(block)
    assert (pool.num_available, pool.is_idle(block)) == (1, False)


def test_eviction_takes_ends_of_chains_before_what_they_continue():
    pool, _ = make(5)
    long = chain_of(1, 1, 2, 2, 3, 3)
    branch = [long[0], *chain_of(1, 1, 9, 9)[1:]]
    held = hold(pool, long)
    (leaf,) = hold(pool, branch[1:])
    pool.hold(held[0])
    drop(pool, [held[0], leaf])  # idle first: the branch's end
    drop(pool, held)
    expected = [
        ([True, True, True], [True, False]),
        ([True, True, False], [True, False]),
        ([True, False, False], [True, False]),
        ([False, False, False], [False, False]),
    ]
    pool.take(None)  # the one free block
    for one, other in expected:
        pool.take(None)
        assert (cached(pool, long), cached(pool, branch)) == (one, other)
    assert pool.evictions == 4
    with pytest.raises(IndexError, match="no block"):
        pool.take(None)


def test_a_parent_that_became_idle_first_still_waits_for_its_children():
    pool, _ = make(2)
    chain = chain_of(1, 1, 2, 2)
    parent, child = hold(pool, chain)
    pool.drop(parent)
    pool.drop(child)
    pool.take(None)
    assert cached(pool, chain) == [True, False]


def test_an_idle_parent_of_a_held_block_is_evicted_when_nothing_else_is_left():
    pool, _ = make(2)
    chain = chain_of(1, 1, 2, 2)
    parent, _ = hold(pool, chain)
    pool.drop(parent)
    assert pool.num_available == 1
    assert pool.take(None) == parent
    assert pool.evictions == 1


def test_blocks_of_a_window_are_evicted_oldest_first():
    pool, _ = make(2, window=3)
    chain = chain_of(1, 1, 2, 2)
    parent, child = hold(pool, chain)
    pool.drop(parent)
    pool.drop(child)
    pool.take(None)
    assert cached(pool, chain) == [False, True]


def test_a_block_used_again_is_evicted_last():
    pool, _ = make(3)
    singles = [chain_of(token, token) for token in (1, 2, 3)]
    blocks = [hold(pool, one)[0] for one in singles]
    for block in blocks:
        pool.drop(block)
    pool.hold(blocks[0])
    pool.drop(blocks[0])
    pool.take(None)
    assert [cached(pool, one)[0] for one in singles] == [True, False, True]


def test_a_second_block_with_the_same_content_stays_private():
    pool, events = make(2)
    (prefix,) = chain_of(1, 2)
    first, second = pool.take(None), pool.take(None)
    pool.publish(Published(first, prefix))
    pool.publish(Published(second, prefix))
    assert len(events) == len(pool.index) == 1
    pool.drop(second)
    assert not pool.is_idle(second)
    assert pool.find(prefix, KVQuality.EXACT) == first


def test_withdrawing_hides_a_prefix_and_frees_its_block_when_nobody_holds_it():
    pool, _ = make(2)
    chain = chain_of(1, 1, 2, 2)
    first, second = hold(pool, chain)
    pool.drop(second)
    for prefix in chain:
        pool.withdraw(prefix)
    assert cached(pool, chain) == [False, False]
    assert (pool.references(first), pool.num_available) == (1, 1)
    pool.drop(first)
    assert (pool.num_available, pool.is_idle(first)) == (2, False)
    pool.withdraw(chain[0])  # not published: nothing to do


def test_events_name_what_was_stored_and_removed():
    pool, events = make(2)
    one, two = chain_of(1, 1, 2, 2)
    blocks = hold(pool, [one, two])
    drop(pool, blocks)
    pool.clear()
    assert events == [
        KVEvent("stored", 3, (one.key,), ROOT.key, (1, 1), 2),
        KVEvent("stored", 3, (two.key,), one.key, (2, 2), 2),
        KVEvent("removed", 3, (two.key,)),
        KVEvent("removed", 3, (one.key,)),
        KVEvent("cleared", 3),
    ]
    assert pool.num_available == 2


def test_a_variant_is_found_by_the_quality_it_satisfies():
    index = PrefixIndex()
    (prefix,) = chain_of(1, 2)
    dense = Published(0, prefix)
    on_lossy = Published(1, prefix, KVFormatId.DENSE, KVFormatId.INT4_CHANNEL)
    eight_bit = Published(2, prefix, KVFormatId.INT8_TOKEN, KVFormatId.INT8_TOKEN)
    four_bit = Published(3, prefix, KVFormatId.INT4_CHANNEL, KVFormatId.INT4_CHANNEL)

    def found(quality):
        entry = index.find(prefix, quality)
        return None if entry is None else entry.block

    for entry in (four_bit, on_lossy):
        index.add(entry)
    assert [found(quality) for quality in KVQuality] == [None, None, 3]
    index.add(eight_bit)
    assert [found(quality) for quality in KVQuality] == [None, 2, 3]
    index.add(dense)
    assert [found(quality) for quality in KVQuality] == [0, 2, 3]
    index.remove(four_bit)
    assert found(KVQuality.ANY) == 1
    for entry in (on_lossy, eight_bit, dense):
        assert index.has_children(ROOT)
        index.remove(entry)
    assert len(index) == 0
    assert not index.has_children(ROOT)
    assert found(KVQuality.ANY) is None
