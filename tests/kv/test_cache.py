from __future__ import annotations

import pytest

from rtp_core.api import KVGroup, KVPlane, KVQuality, MediaSpan
from rtp_core.kv.block_hash import BlockHasher
from rtp_core.kv.block_space import BlockSpace
from rtp_core.kv.cache import CacheSettings, KVCache, blocks_in_sight

BLOCK = 4
PLANE = KVPlane(1, 1, "float32")


def make(num_blocks=16, windows=(None,), **settings):
    return make_sizes((num_blocks,) * len(windows), windows, **settings)


def make_sizes(num_blocks, windows, **settings):
    groups = [KVGroup(str(at), (at,), (PLANE, PLANE), window) for at, window in enumerate(windows)]
    spaces = [BlockSpace(count) for count in num_blocks]
    settings.setdefault("watermark", 0.0)
    return KVCache(
        groups, spaces, BlockHasher(bytes(32), BLOCK), CacheSettings(BLOCK, "m", **settings)
    )


def begin(cache, tokens, tenant="", salt="", quality=KVQuality.HIGH, media=()):
    """A sequence that was admitted: match held, room for all tokens."""
    blocks = cache.open(tenant, salt, quality, media)
    match = cache.lookup(blocks, tokens)
    assert cache.fits(match, len(tokens), reserve=False)
    cache.acquire(blocks, match)
    assert cache.try_grow(blocks, len(tokens))
    return blocks, match


def compute(cache, tokens, **who):
    blocks, _ = begin(cache, tokens, **who)
    cache.publish(blocks, tokens, len(tokens))
    return blocks


def hit(cache, tokens, tenant="", salt="", quality=KVQuality.HIGH, media=()):
    return cache.lookup(cache.open(tenant, salt, quality, media), tokens).num_blocks


TEXT = list(range(20))


def test_a_hit_is_the_longest_run_of_full_blocks():
    cache = make()
    compute(cache, TEXT[:18])
    assert hit(cache, TEXT) == 4
    assert hit(cache, [*TEXT[:9], 99, *TEXT[10:]]) == 2
    assert hit(cache, [99, *TEXT[1:]]) == 0


def test_blocks_that_keep_a_prefix_are_counted_once_nobody_holds_them():
    cache = make()
    blocks = compute(cache, TEXT[:8])
    assert (cache.num_blocks_used, cache.num_blocks_idle) == (2, 0)
    cache.release(blocks)
    assert (cache.num_blocks_used, cache.num_blocks_idle) == (0, 2)
    cache.reset()
    assert cache.num_blocks_idle == 0


def test_equal_contents_have_equal_digests_in_whatever_order_they_came():
    one, other, empty = make(), make(), make()
    texts = [TEXT[:8], [9, *TEXT[:8]], TEXT[4:16]]
    for cache, order in ((one, texts), (other, reversed(texts))):
        for text in order:
            cache.release(compute(cache, text))
    (report,), (same,) = one.report()["groups"], other.report()["groups"]
    assert report == same
    assert (report["total"], report["used"], report["published"]) == (16, 0, 7)
    assert report["digest"] != empty.report()["groups"][0]["digest"] == "0" * 32
    one.withdraw(begin(one, TEXT[:8])[0])
    assert one.report()["groups"][0]["digest"] != report["digest"]


def test_the_last_token_is_always_left_to_compute():
    cache = make()
    compute(cache, TEXT)
    assert [hit(cache, TEXT[:length]) for length in (1, 4, 5, 8, 9, 20)] == [0, 0, 1, 1, 2, 4]


def test_readers_share_blocks_and_the_first_to_leave_takes_nothing_along():
    cache = make()
    one = compute(cache, TEXT)
    two, match = begin(cache, [*TEXT[:16], 7])
    assert two.tables[0][:4] == one.tables[0][:4]
    assert match.num_blocks == 4
    assert (two.num_published, two.capacity) == (4, 20)
    assert cache.num_blocks_used == 6
    cache.release(one)
    assert cache.num_blocks_used == 5
    assert hit(cache, TEXT) == 4


def test_what_is_not_computed_is_not_found():
    cache = make()
    blocks, _ = begin(cache, TEXT)
    assert hit(cache, TEXT) == 0
    cache.publish(blocks, TEXT, 11)
    assert (hit(cache, TEXT), blocks.num_published) == (2, 2)
    cache.publish(blocks, TEXT, 11)
    cache.publish(blocks, TEXT, 20)
    assert (hit(cache, [*TEXT, 1]), blocks.num_published) == (5, 5)


@pytest.mark.parametrize(
    ("writer", "reader", "found"),
    [
        ({"tenant": "a"}, {"tenant": "a"}, 4),
        ({"tenant": "a"}, {"tenant": "b"}, 0),
        ({"tenant": "a"}, {}, 0),
        ({"tenant": "a", "salt": "x"}, {"tenant": "a", "salt": "x"}, 4),
        ({"tenant": "a", "salt": "x"}, {"tenant": "a"}, 0),
        ({"tenant": "a", "salt": "x"}, {"tenant": "ax"}, 0),
        ({"tenant": "a\0x"}, {"tenant": "a", "salt": "x"}, 0),
    ],
)
def test_blocks_never_cross_tenants_and_salts(writer, reader, found):
    cache = make()
    compute(cache, TEXT, **writer)
    assert hit(cache, TEXT, **reader) == found


def test_pictures_under_equal_placeholders_are_told_apart():
    cache = make()
    cat, dog = ((MediaSpan(5, 6, name, "vision"),) for name in ("cat", "dog"))
    compute(cache, TEXT, media=cat)
    assert hit(cache, TEXT, media=cat) == 4
    assert hit(cache, TEXT, media=dog) == 1
    assert hit(cache, TEXT) == 1


def test_colliding_keys_find_only_equal_text():
    groups = [KVGroup("g", (0,), (PLANE, PLANE))]
    hasher = BlockHasher(bytes(32), BLOCK, digest_bytes=1)
    cache = KVCache(groups, [BlockSpace(4000)], hasher, CacheSettings(BLOCK, "m"))
    keys = set()
    for first in range(600):
        blocks = compute(cache, [first, 0, 0, 0, first % 7, 1, 1, 1])
        keys.update(prefix.key for prefix in blocks.chain)
        cache.release(blocks)
    assert len(keys) <= 256
    for first in range(600):
        for second in range(7):
            expected = 2 if second == first % 7 else 1
            assert hit(cache, [first, 0, 0, 0, second, 1, 1, 1, 5]) == expected


def test_switched_off_it_finds_and_keeps_nothing():
    cache = make(prefix_caching=False)
    cache.release(compute(cache, TEXT))
    assert hit(cache, TEXT) == 0
    assert cache.pools[0].num_available == 16
    assert len(cache.pools[0].index) == 0


def test_growing_takes_blocks_for_all_groups_or_for_none():
    cache = make(num_blocks=4, windows=(None, None))
    blocks, _ = begin(cache, TEXT[:5])
    assert blocks.capacity == 8
    taken, _ = begin(cache, [7] * 5)
    assert not cache.try_grow(blocks, 9)
    assert ([len(table) for table in blocks.tables], blocks.capacity) == ([2, 2], 8)
    assert cache.try_grow(blocks, 8)
    cache.release(taken)
    assert cache.try_grow(blocks, 16)
    assert [len(table) for table in blocks.tables] == [4, 4]


def test_a_match_is_not_evicted_by_the_growth_that_follows_it():
    cache = make(num_blocks=5)
    cache.release(compute(cache, TEXT[:16]))
    blocks, match = begin(cache, TEXT[:20])
    assert match.num_blocks == 4
    assert len(set(blocks.tables[0])) == 5


def test_idle_blocks_of_the_match_do_not_count_as_room():
    cache = make(num_blocks=5)
    cache.release(compute(cache, TEXT[:16]))
    match = cache.lookup(cache.open("", "", KVQuality.HIGH), TEXT)
    assert cache.fits(match, 20, reserve=False)
    assert not cache.fits(match, 21, reserve=False)


def test_the_watermark_is_kept_free_only_on_request():
    cache = make(num_blocks=16, watermark=0.25)
    match = cache.lookup(cache.open("", "", KVQuality.HIGH), [0] * 50)
    assert cache.fits(match, 12 * BLOCK, reserve=True)
    assert not cache.fits(match, 12 * BLOCK + 1, reserve=True)
    assert cache.fits(match, 16 * BLOCK, reserve=False)
    assert not cache.fits(match, 16 * BLOCK + 1, reserve=False)


def test_withdrawing_takes_the_whole_prefix_back_from_everybody_who_has_not_got_it():
    cache = make()
    good = compute(cache, TEXT[:8])
    bad, _ = begin(cache, TEXT)
    cache.publish(bad, TEXT, 20)
    reader, match = begin(cache, [*TEXT, 1])
    assert match.num_blocks == 5
    cache.withdraw(bad)
    assert hit(cache, TEXT) == 0
    for blocks in (bad, good, reader):
        cache.release(blocks)
    assert cache.pools[0].num_available == 16
    assert hit(cache, TEXT) == 0


def test_withdrawing_works_after_the_blocks_were_given_back():
    cache = make()
    blocks = compute(cache, TEXT)
    cache.release(blocks)
    assert hit(cache, TEXT) == 4
    cache.withdraw(blocks)
    assert hit(cache, TEXT) == 0
    assert cache.pools[0].num_available == 16


def test_reset_forgets_idle_blocks_and_refuses_while_some_are_used():
    cache = make()
    blocks = compute(cache, TEXT)
    assert not cache.reset()
    assert hit(cache, TEXT) == 4
    cache.release(blocks)
    assert cache.reset()
    assert hit(cache, TEXT) == 0
    assert cache.pools[0].num_available == 16


def test_usage_counts_held_blocks_of_all_groups():
    cache = make(num_blocks=10, windows=(None, 8))
    blocks = compute(cache, TEXT)
    assert (cache.num_blocks, cache.num_blocks_used, cache.usage) == (20, 10, 0.5)
    assert cache.max_tokens == 40
    cache.release(blocks)
    assert cache.usage == 0.0


def test_a_sequence_sees_its_window_and_its_step_wherever_blocks_begin():
    for window in range(1, 12):
        for step in range(1, 9):
            most = blocks_in_sight(window, step, BLOCK)
            for start in range(30):
                seen = range(max(0, start - window + 1), start + step)
                assert len({position // BLOCK for position in seen}) <= most


def test_only_groups_that_keep_everything_reserve_a_whole_prompt():
    cache = make(windows=(None, 5, 1), max_step_tokens=8)
    blocks = cache.open("", "", KVQuality.HIGH)
    assert cache.reserve(blocks, 20)
    assert [len(table) for table in blocks.tables] == [5, 0, 0]
    assert blocks.capacity == 0
    assert cache.try_grow(blocks, 8)
    assert ([len(table) for table in blocks.tables], blocks.capacity) == ([5, 2, 2], 8)
    assert cache.try_grow(blocks, 24)
    assert ([len(table) for table in blocks.tables], blocks.capacity) == ([6, 6, 6], 24)


def test_a_prompt_needs_of_a_window_group_what_it_ever_holds_there():
    """Eight tokens a step behind a window of five span at most four blocks."""
    cache = make(num_blocks=16, windows=(None, 5), max_step_tokens=8)
    taken, _ = begin(cache, [7] * 48)
    cache.drop_outside_windows(taken, 48)
    assert cache.pools[0].num_available == 4
    assert cache.pools[1].num_available == 15
    nothing = cache.lookup(cache.open("", "", KVQuality.HIGH), [1] * 16)
    assert cache.fits(nothing, 16, reserve=False)
    assert not cache.fits(nothing, 17, reserve=False)
    small = make_sizes((16, 4), (None, 5), max_step_tokens=8)
    nothing = small.lookup(small.open("", "", KVQuality.HIGH), [1] * 64)
    assert small.fits(nothing, 64, reserve=False)
    assert small.max_tokens == 64
    smaller = make_sizes((16, 3), (None, 5), max_step_tokens=8)
    assert not smaller.fits(nothing, 64, reserve=False)
    assert smaller.max_tokens == 12


def test_a_full_length_match_of_a_window_fits_into_what_it_holds():
    cache = make_sizes((16, 4), (None, 5), max_step_tokens=8)
    blocks = cache.open("", "", KVQuality.HIGH)
    cache.reserve(blocks, 24)
    for end in (8, 16, 24):
        assert cache.try_grow(blocks, end)
        cache.publish(blocks, list(range(24)), end)
        cache.drop_outside_windows(blocks, end)
    cache.release(blocks)
    match = cache.lookup(cache.open("", "", KVQuality.HIGH), [*range(24), *[9] * 40])
    assert match.num_blocks == 6
    assert cache.fits(match, 64, reserve=False)


def test_window_blocks_out_of_sight_are_given_back_and_their_entries_stay_valid():
    cache = make(windows=(None, 6))
    blocks = compute(cache, TEXT)
    full, window = cache.pools
    for length in range(1, 21):
        cache.drop_outside_windows(blocks, length)
        table, dropped = blocks.tables[1], blocks.num_dropped[1]
        # the next query sees positions length - 5 …
        assert dropped == min(max(0, length - 5) // BLOCK, 4)
        assert len(table) == 5
        assert all(window.references(block) == 1 for block in table)
        assert set(table[:dropped]) <= set(table[dropped:])
    assert full.num_used == 5
    assert window.num_used == 2
    cache.release(blocks)
    assert window.num_used == full.num_used == 0


def test_a_hit_needs_of_a_window_only_what_is_in_sight():
    cache = make(num_blocks=8, windows=(None, 6))
    cache.release(compute(cache, TEXT[:16]))
    window = cache.pools[1]
    blocks, match = begin(cache, TEXT[:17])
    assert match.num_blocks == 4
    assert [block is None for block in match.blocks[1]] == [True, True, False, False]
    assert blocks.num_dropped == [0, 2]
    assert [len(table) for table in blocks.tables] == [5, 5]
    assert window.num_used == 3


def test_a_hit_ends_where_the_window_is_not_held():
    cache = make(num_blocks=8, windows=(None, 6))
    cache.release(compute(cache, TEXT[:16]))
    chain = cache.open("", "", KVQuality.HIGH)
    cache.lookup(chain, TEXT)
    cache.pools[1].withdraw(chain.chain[3])
    assert hit(cache, TEXT) == 3
    cache.pools[1].withdraw(chain.chain[1])  # the window after 3 blocks still needs it
    assert hit(cache, TEXT) == 1
    cache.pools[1].withdraw(chain.chain[0])
    assert hit(cache, TEXT) == 0


def test_of_what_a_sequence_leaves_behind_the_end_goes_first():
    for windows in [(None,), (64,), (None, 64)]:
        cache = make(num_blocks=4, windows=windows)
        cache.release(compute(cache, TEXT[:16]))
        begin(cache, [7])
        assert hit(cache, TEXT) == 3
        begin(cache, [8])
        assert hit(cache, TEXT) == 2


def test_a_window_of_one_token_still_has_a_table_as_long_as_the_others():
    cache = make(windows=(None, 1))
    cache.release(compute(cache, TEXT[:16]))
    blocks, match = begin(cache, TEXT)
    assert match.num_blocks == 4
    assert [len(table) for table in blocks.tables] == [5, 5]
