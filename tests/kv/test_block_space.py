from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtp_core.api import KVFormatId
from rtp_core.kv.block_space import BlockSpace

DENSE = KVFormatId.DENSE


def test_a_lone_sequence_grows_in_one_run():
    space = BlockSpace(64)
    blocks = [space.allocate(DENSE)]
    while len(blocks) < 64 - blocks[0]:
        blocks.append(space.allocate(DENSE, blocks[-1]))
    assert blocks == list(range(blocks[0], 64))


def test_sequences_that_start_together_have_room_to_grow_in_runs():
    space = BlockSpace(64)
    tables = [[space.allocate(DENSE)] for _ in range(4)]
    for _ in range(15):
        for table in tables:
            table.append(space.allocate(DENSE, table[-1]))
    for table in tables:
        assert table == list(range(table[0], table[0] + 16))


def test_every_block_is_handed_out_once_then_none():
    space = BlockSpace(37)
    blocks = [space.allocate(DENSE, None if at % 3 else at) for at in range(37)]
    assert sorted(blocks) == list(range(37))
    assert space.allocate(DENSE) is None
    assert space.allocate(DENSE, 5) is None
    assert space.num_free == 0
    space.free(7)
    assert space.num_free == 1
    assert space.allocate(DENSE, 36) == 7


def test_the_end_of_the_space_is_no_neighbour():
    space = BlockSpace(4)
    assert space.allocate(DENSE, 3) in range(4)


@pytest.mark.parametrize("block", [-1, 2, 4])
def test_freeing_what_is_not_allocated_is_an_error(block):
    space = BlockSpace(4)
    with pytest.raises(ValueError, match=f"block {block} is not allocated"):
        space.free(block)


def test_a_nearly_full_large_space_is_searched_quickly():
    space = BlockSpace(100_000)
    blocks = [space.allocate(DENSE) for _ in range(100_000)]
    assert len(set(blocks)) == 100_000


@settings(deadline=None)
@given(size=st.integers(1, 40), moves=st.lists(st.integers(-1, 45), max_size=120))
def test_free_count_and_ids_stay_right_under_any_use(size, moves):
    space = BlockSpace(size)
    held = []
    for move in moves:
        if move < 0 and held:
            space.free(held.pop(len(held) // 2))
        else:
            near = move if 0 <= move < size else None
            wanted = near is not None and near + 1 < size and near + 1 not in held
            block = space.allocate(DENSE, near)
            assert (block is None) == (len(held) == size)
            if block is not None:
                assert block not in held
                assert not wanted or block == near + 1
                held.append(block)
        assert space.num_free == size - len(held)
        assert [space.is_free(block) for block in range(size)] == [
            block not in held for block in range(size)
        ]
