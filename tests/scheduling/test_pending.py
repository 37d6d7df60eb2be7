from __future__ import annotations

from rtp_core.kv.block_hash import BlockHasher
from rtp_core.kv.prefix import PrefixTree
from rtp_core.scheduling.pending import PendingBlocks

TREE = PrefixTree(BlockHasher(bytes(32), 1))
ROOT = TREE.root("", "", "m")


def chain_of(text):
    chain = []
    TREE.extend(chain, ROOT, [ord(letter) for letter in text])
    return chain


def test_blocks_are_pending_from_claim_to_settlement():
    pending = PendingBlocks()
    chain = chain_of("abcd")
    assert not pending.computed_elsewhere(chain, 0)
    pending.claim("one", chain)
    assert pending.computed_elsewhere(chain_of("abxy"), 0)
    assert not pending.computed_elsewhere(chain_of("axyz"), 0), "one block is no reason to wait"
    assert not pending.computed_elsewhere(chain_of("abxy"), 1)
    assert not pending.computed_elsewhere(chain_of("a"), 0)
    pending.settle("one", chain[:3])
    assert not pending.computed_elsewhere(chain, 0)
    assert len(pending) == 1
    pending.settle("one", chain)
    assert len(pending) == 0


def test_the_first_to_claim_a_block_keeps_it():
    pending = PendingBlocks()
    one, two = chain_of("abc"), chain_of("abd")
    pending.claim("one", one)
    pending.claim("two", two)
    pending.settle("two", two)
    assert pending.computed_elsewhere(one, 0)
    assert not pending.computed_elsewhere(two, 1)
    pending.settle("one", one)
    assert len(pending) == 0


def test_blocks_computed_by_two_sequences_are_waited_for_too():
    pending = PendingBlocks()
    chain = chain_of("abcd")
    pending.claim("one", chain[:1])
    pending.claim("two", chain[1:])
    assert pending.computed_elsewhere(chain, 0)
    pending.settle("two", chain)
    assert not pending.computed_elsewhere(chain, 0)
