"""How many blocks each KV group gets."""

from __future__ import annotations

import dataclasses

import pytest

from rtp_core.api import EngineLimits, KVGroup, KVPlane, ParameterSpec
from rtp_core.config.schema import EngineConfig, KVConfig
from rtp_core.engine.capacity import plan_cache, weight_bytes
from rtp_core.errors import CapacityError
from rtp_core.kv.cache import blocks_in_sight

MIB = 2**20
PLANE = KVPlane(2, 64, "bfloat16")
LIMITS = EngineLimits(
    max_model_len=4096,
    max_num_seqs=8,
    max_num_batched_tokens=256,
    block_size=16,
    max_draft_tokens=0,
)


class Store:
    def block_bytes(self, group, block_size):
        return len(group.layers) * 2 * block_size * 2 * 64 * 2


def group(layers, window=None):
    return KVGroup(str(window), tuple(range(layers)), (PLANE, PLANE), window)


def plan(groups, memory=0.0, room=2**34, **limits):
    config = EngineConfig(kv=KVConfig(memory=memory))
    return plan_cache(config, groups, Store(), dataclasses.replace(LIMITS, **limits), room)


FULL, WINDOW = group(2), group(10, 512)
ONE = Store().block_bytes(group(1), 16)


def test_one_group_gets_all_the_memory_it_can_use():
    assert plan([FULL], memory=100 * 2 * ONE).num_blocks == (100,)
    longest = 4096 // 16 + 1
    assert plan([FULL], memory=2**33).num_blocks == (8 * longest,)


def test_by_default_a_full_length_request_fits():
    (blocks,) = plan([group(40)]).num_blocks
    assert blocks == max(257, 512 * MIB // (40 * ONE))
    (blocks,) = plan([group(400)]).num_blocks
    assert blocks == 257


def test_small_memory_is_shared_evenly():
    found = plan([FULL, WINDOW], memory=50 * 12 * ONE)
    assert found.num_blocks == (50, 50)
    assert found.num_bytes == 50 * 12 * ONE


def test_a_window_group_stops_where_it_could_use_no_more():
    seen = 8 * blocks_in_sight(512, 1, 16) + 16
    full, window = plan([FULL, WINDOW], memory=400 * 12 * ONE).num_blocks
    assert window == seen
    assert full == (400 * 12 - seen * 10) // 2
    assert full > 2 * 400


def test_what_a_full_length_request_holds_comes_first():
    """Even shares would leave the full group 723 blocks, or 2,942 after the window's cap."""
    longest = 65536 // 16 + 1
    held = blocks_in_sight(512, 256, 16)
    memory = (longest * 2 + held * 10) * ONE
    assert plan([FULL, WINDOW], memory=memory, max_model_len=65536).num_blocks == (longest, held)
    less = plan([FULL, WINDOW], memory=memory - ONE, max_model_len=65536).num_blocks
    assert less == (2941, 280)


def test_what_all_sequences_see_at_once_fits_a_capped_window_group():
    """Each decodes within a window but one, which computes a whole chunk."""
    _, window = plan([FULL, WINDOW], memory=2**33).num_blocks
    assert window >= 7 * blocks_in_sight(512, 1, 16) + blocks_in_sight(512, 256, 16)


def test_the_default_counts_only_what_a_long_request_holds_of_a_window():
    full = plan([group(12)], max_model_len=2**18).num_bytes
    mixed = plan([FULL, WINDOW], max_model_len=2**18).num_bytes
    assert full == (2**14 + 1) * 12 * ONE
    assert mixed < full / 3
    blocks = plan([FULL, WINDOW], max_model_len=2**18).num_blocks
    assert blocks[0] >= 2**18 // 16
    assert blocks[1] >= blocks_in_sight(512, 256, 16)


def test_a_model_of_windows_only_keeps_the_memory_for_prefixes():
    (blocks,) = plan([WINDOW], memory=500 * 10 * ONE).num_blocks
    assert blocks == 500


def test_more_than_the_weights_leave_is_refused():
    with pytest.raises(CapacityError, match=r"wants 200 MiB, but the weights leave 100 MiB"):
        plan([FULL], memory=200 * MIB, room=100 * MIB)


def test_too_little_is_refused():
    with pytest.raises(CapacityError, match="holds 1 blocks"):
        plan([FULL], memory=2 * ONE)


def test_weight_bytes_count_each_parameter_in_its_dtype():
    parameters = [ParameterSpec("a", (3, 5), "bfloat16"), ParameterSpec("b", (7,), "float32")]
    assert weight_bytes(parameters) == 58
