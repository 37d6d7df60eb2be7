"""What Hopper gets of the attention kernels: no spills, the products and copies that are meant."""

from __future__ import annotations

import pytest
from ahead_of_time import compile_all
from attention_builds import decode_case, geometry_of, ragged_case, store_case

GEOMETRY = geometry_of()


def assert_decodes_well(compiled, copies):
    assert compiled.stack == 0
    assert compiled.registers <= 255
    assert compiled.older_products > 0
    assert compiled.asynchronous_copies >= copies
    assert compiled.dependency_waits == 1


def test_decoding_and_prefill_of_the_measured_shape():
    """A tile of 64 keys is 32 KiB: 32 copies of 16 bytes by 64 threads, or 16 by 128, twice."""
    decode, chunk, kept = compile_all(
        [decode_case(GEOMETRY, 64, 1, 1024), ragged_case(GEOMETRY), store_case(GEOMETRY)]
    )
    assert_decodes_well(decode, 32)
    assert decode.registers <= 128  # four programs of four warps share a processor
    assert chunk.stack == 0
    assert chunk.registers <= 255
    assert chunk.hopper_products > 0
    assert chunk.older_products == 0
    assert chunk.asynchronous_copies >= 32
    assert kept.stack == 0
    assert kept.vector_loads >= 6
    assert kept.registers <= 128


@pytest.mark.long
def test_every_measured_decode_choice():
    shapes = [(1, 1024), (8, 1024), (16, 1024), (32, 1024), (64, 1024), (256, 1024), (1, 8192),
              (8, 8192), (32, 8192), (1, 32768)]  # fmt: skip
    for one in compile_all([decode_case(GEOMETRY, rows, 1, context) for rows, context in shapes]):
        assert_decodes_well(one, 32)


@pytest.mark.long
@pytest.mark.parametrize("tree", [False, True])
def test_every_measured_verify_choice(tree):
    shapes = [(rows, new) for rows in (1, 8, 32) for new in (2, 4, 5, 8, 16)]
    cases = [decode_case(GEOMETRY, rows, new, 1024, tree=tree) for rows, new in shapes]
    for one in compile_all(cases):
        assert one.stack == 0
        assert one.asynchronous_copies >= 32


@pytest.mark.long
@pytest.mark.parametrize("dim", [64, 80, 96, 128, 256])
def test_every_head_size(dim):
    geometry = geometry_of(dim=dim)
    windowed = geometry_of(dim=dim, window=1024, softcap=50.0)
    cases = [
        decode_case(geometry, 1, 1, 1024, lse=True),
        decode_case(windowed, 64, 1, 8192),
        decode_case(windowed, 8, 5, 1024, rotary=dim // 2),
        ragged_case(geometry, lse=True),
        ragged_case(windowed),
        store_case(geometry),
        store_case(geometry, rotary=dim // 2),
        store_case(geometry, rotary=0, norm=False),
    ]
    for case, one in zip(cases, compile_all(cases), strict=True):
        assert one.stack == 0, case


@pytest.mark.long
@pytest.mark.parametrize(("group", "kv_heads"), [(1, 32), (2, 8), (7, 4), (8, 4), (16, 2), (71, 1)])
def test_every_head_ratio(group, kv_heads):
    geometry = geometry_of(group, 64, kv_heads)
    cases = [decode_case(geometry, 8, new, 1024) for new in (1, 4)] + [ragged_case(geometry)]
    for case, one in zip(cases, compile_all(cases), strict=True):
        assert one.stack == 0, case
