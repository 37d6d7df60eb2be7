from __future__ import annotations

import gc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtp_core.api import MediaSpan
from rtp_core.kv.block_hash import BlockHasher
from rtp_core.kv.prefix import PrefixTree

SECRET = bytes(32)


def tree_of(block_size=4, digest_bytes=16):
    return PrefixTree(BlockHasher(SECRET, block_size, digest_bytes))


def chain_of(tree, tokens, tenant="", salt="", model="m", media=()):
    chain = []
    tree.extend(chain, tree.root(tenant, salt, model), tokens, media)
    return chain


def test_equal_prefixes_are_one_object_until_they_part():
    tree = tree_of()
    one = chain_of(tree, [1, 2, 3, 4, 5, 6, 7, 8, 9])
    two = chain_of(tree, [1, 2, 3, 4, 5, 6, 7, 0])
    assert len(one) == len(two) == 2
    assert one[0] is two[0]
    assert one[1] is not two[1]


def test_a_block_after_another_past_is_another_prefix():
    tree = tree_of()
    one = chain_of(tree, [1, 1, 1, 1, 5, 6, 7, 8])
    two = chain_of(tree, [2, 2, 2, 2, 5, 6, 7, 8])
    assert one[1] is not two[1]


@pytest.mark.parametrize("other", [{"tenant": "b"}, {"salt": "s"}, {"model": "n"}])
def test_tenants_salts_and_models_share_nothing(other):
    tree = tree_of()
    one, two = chain_of(tree, [1] * 8), chain_of(tree, [1] * 8, **other)
    assert not set(one) & set(two)
    assert not {prefix.key for prefix in one} & {prefix.key for prefix in two}


def test_media_separates_equal_placeholders_from_its_block_on():
    tree = tree_of()
    tokens = [1] * 4 + [0] * 4 + [2] * 4
    cat = chain_of(tree, tokens, media=(MediaSpan(5, 3, "cat", "vision"),))
    dog = chain_of(tree, tokens, media=(MediaSpan(5, 3, "dog", "vision"),))
    assert cat[0] is dog[0]
    assert cat[1] is not dog[1]
    assert cat[2] is not dog[2]


def test_keys_are_those_of_the_hasher_whichever_is_asked_first():
    hasher = BlockHasher(SECRET, 4)
    tree = PrefixTree(hasher)
    chain = chain_of(tree, list(range(12)))
    parent = hasher.root("", "", "m")
    expected = []
    for begin in (0, 4, 8):
        parent = hasher.key(parent, tuple(range(begin, begin + 4)))
        expected.append(parent)
    assert chain[2].key == expected[2]
    assert [prefix.key for prefix in chain] == expected


def test_extending_adds_only_what_is_new():
    tree = tree_of()
    tokens = [1, 2, 3]
    chain = []
    root = tree.root("", "", "m")
    for token in range(10):
        tree.extend(chain, root, tokens)
        assert len(chain) == len(tokens) // 4
        tokens.append(token)
    assert chain == chain_of(tree, tokens)


def test_prefixes_nobody_holds_are_forgotten():
    tree = tree_of()
    chain = chain_of(tree, list(range(4000)))
    last = chain[-1]
    assert len(tree) == 1001  # the root too
    del chain
    assert len(tree) == 1001  # the last one holds those before it
    del last
    gc.collect()
    assert len(tree) == 0


def test_a_very_long_chain_is_named_and_forgotten_without_deep_recursion():
    tree = tree_of(block_size=1)
    last = chain_of(tree, [1] * 100_000)[-1]
    assert len(last.key) == 16
    del last
    assert len(tree) == 0


@settings(deadline=None)
@given(
    texts=st.lists(st.lists(st.integers(0, 2), max_size=12), max_size=12),
    digest_bytes=st.sampled_from([1, 16]),
)
def test_identity_is_equality_of_text_even_when_keys_collide(texts, digest_bytes):
    tree = tree_of(block_size=2, digest_bytes=digest_bytes)
    kept = []
    seen = {}
    for text in texts:
        chain = chain_of(tree, text)
        kept.append(chain)
        for number, prefix in enumerate(chain):
            assert prefix.key
            assert seen.setdefault(tuple(text[: 2 * number + 2]), prefix) is prefix
    assert len(set(seen.values())) == len(seen)
