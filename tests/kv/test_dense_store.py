from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from rtp_core.api import BlockCopy, KVGroup, KVPlane
from rtp_core.kv.dense_store import DenseStore

BLOCK = 4
GROUPS = (
    KVGroup("full", (0, 2), (KVPlane(2, 8, "float32"), KVPlane(2, 8, "float32"))),
    KVGroup("window", (1,), (KVPlane(1, 16, "bfloat16"), KVPlane(3, 4, "bfloat16")), 8),
)


def fill(memory, layers=(0, 1, 2)):
    for layer in layers:
        for plane in memory.planes(layer):
            plane.copy_(torch.randn(plane.shape))


def test_planes_are_views_of_one_memory_of_the_size_announced():
    store = DenseStore()
    memory = store.open(GROUPS, (5, 3), BLOCK, "cpu")
    keys, values = memory.planes(2)
    assert keys.shape == values.shape == (2, 5 * BLOCK, 8)
    keys, values = memory.planes(1)
    assert (keys.shape, values.shape) == ((1, 3 * BLOCK, 16), (3, 3 * BLOCK, 4))
    assert keys.dtype is torch.bfloat16
    sizes = [store.block_bytes(group, BLOCK) for group in GROUPS]
    assert memory.num_bytes == 5 * sizes[0] + 3 * sizes[1]
    assert [memory.space(group).num_blocks for group in (0, 1)] == [5, 3]


def test_a_block_travels_bit_by_bit_whatever_the_geometry():
    source = DenseStore().open(GROUPS, (5, 3), BLOCK, "cpu")
    target = DenseStore().open(GROUPS, (5, 3), BLOCK, "cpu")
    fill(source)
    for group in (0, 1):
        blob = source.export_block(group, 2)
        assert len(blob) == DenseStore().block_bytes(GROUPS[group], BLOCK)
        target.import_block(group, 0, blob)
        assert target.export_block(group, 0) == blob
        for layer in GROUPS[group].layers:
            for here, there in zip(source.planes(layer), target.planes(layer), strict=True):
                assert torch.equal(here[:, 2 * BLOCK : 3 * BLOCK], there[:, :BLOCK])
                assert not there[:, BLOCK:].any()


def test_a_blob_is_layer_then_k_and_v_then_head_token_dim():
    memory = DenseStore().open(GROUPS[:1], (2,), BLOCK, "cpu")
    fill(memory, (0, 2))
    blob = torch.frombuffer(bytearray(memory.export_block(0, 1)), dtype=torch.float32)
    expected = [plane[:, BLOCK:].flatten() for layer in (0, 2) for plane in memory.planes(layer)]
    assert torch.equal(blob, torch.cat(expected))


def test_a_blob_of_the_wrong_length_is_refused():
    memory = DenseStore().open(GROUPS, (2, 2), BLOCK, "cpu")
    with pytest.raises(ValueError, match="a block has 1024 bytes, not 3"):
        memory.import_block(0, 0, b"abc")


def test_copies_run_in_order_and_stay_in_their_group():
    memory = DenseStore().open(GROUPS, (3, 3), BLOCK, "cpu")
    fill(memory)
    first, other = memory.export_block(0, 0), memory.export_block(1, 2)
    memory.copy([BlockCopy(0, 0, 1), BlockCopy(0, 1, 2)])
    assert memory.export_block(0, 2) == first
    assert memory.export_block(1, 2) == other


def resident_bytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def test_blocks_that_nobody_used_take_no_memory():
    before = resident_bytes()
    memory = DenseStore().open(GROUPS[:1], (500_000,), BLOCK, "cpu")
    assert memory.num_bytes > 500_000_000
    assert resident_bytes() - before < 50_000_000
    keys, _ = memory.planes(2)
    assert keys.data_ptr() % 64 == 0
    assert not keys[:, -BLOCK:].any()
    keys[:, -1] = 1.0
    assert keys[0, -1].sum() == 8
