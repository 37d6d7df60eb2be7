"""Whole blocks, in order, nothing else."""

from __future__ import annotations

import pytest
import torch

from rtp_kernels.registry import resolve

BLOCK = 4


@pytest.fixture
def plane():
    """[layers, kv_heads, slots, head_dim], as a view with gaps between the heads."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 8 * BLOCK + 5, 6, generator=generator)[:, :, : 8 * BLOCK]


def blocks(plane, block):
    return plane[..., block * BLOCK : (block + 1) * BLOCK, :]


def test_a_block_is_copied_in_all_layers_and_heads_and_others_stay(plane):
    before = plane.clone()
    resolve("block_copy", "cpu", "float32")(plane, [(1, 6)], BLOCK)
    assert torch.equal(blocks(plane, 6), blocks(before, 1))
    untouched = [block for block in range(8) if block != 6]
    for block in untouched:
        assert torch.equal(blocks(plane, block), blocks(before, block))


def test_pairs_are_copied_in_order(plane):
    before = plane.clone()
    resolve("block_copy", "cpu", "float32")(plane, [(0, 1), (1, 2), (7, 0)], BLOCK)
    assert torch.equal(blocks(plane, 2), blocks(before, 0))
    assert torch.equal(blocks(plane, 0), blocks(before, 7))


def test_no_pairs_do_nothing(plane):
    before = plane.clone()
    resolve("block_copy", "cpu", "float32")(plane, [], BLOCK)
    assert torch.equal(plane, before)
