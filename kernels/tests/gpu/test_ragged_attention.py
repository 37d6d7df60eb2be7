"""Storing and attending rows of any length, in Triton's interpreter, against the definition."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import triton
from checks.attention_steps import expected, live_tokens, make_step, slots_of
from hypothesis import given, settings
from hypothesis import strategies as st
from triton import language as tl

from rtp_kernels.paged_attention.choice import RaggedChoice, power_of_2
from rtp_kernels.paged_attention.heads import locate
from rtp_kernels.paged_attention.plan import Geometry
from rtp_kernels.paged_attention.ragged import ragged, store

TOLERANCE = {torch.float32: (2e-5, 2e-5), torch.float16: (3e-3, 3e-3)}


def geometry_of(group=2, dim=64, kv_heads=1, *, block=16, window=None, softcap=None):
    return Geometry(group * kv_heads, kv_heads, dim, block, dim**-0.5, window, softcap)


def run(step, *, block=16, tile=16, max_new=None):
    """(out, lse) of both launches, and the planes checked slot by slot."""
    out, planes, lse = expected(step)
    absolute, relative = TOLERANCE[step.qkv.dtype]
    geometry = step.geometry
    before = step.qkv.clone()
    if step.tables.writes is not None:  # what such rows see of themselves is stored already
        store(
            before.clone(), step.planes, replace(step.tables, writes=None), geometry, step.norms,
            step.max_new,
        )  # fmt: skip
        blank = ~step.tables.writes
        for plane, wanted in zip(step.planes, planes, strict=True):
            for row, skipped in zip(step.rows, blank.tolist(), strict=True):
                if skipped and row is not None:
                    at = slots_of(row, row.start, row.start + row.num_new, geometry.block_size)
                    wanted[:, at] = plane[:, at].float()
    store(step.qkv, step.planes, step.tables, geometry, step.norms, step.max_new)
    for plane, wanted in zip(step.planes, planes, strict=True):
        torch.testing.assert_close(
            plane.float(), wanted, atol=absolute, rtol=relative, equal_nan=True
        )
    width = geometry.num_kv_heads * geometry.head_dim
    assert torch.equal(step.qkv[:, -width:], before[:, -width:])
    assert torch.equal(step.qkv[~live_tokens(step)], before[~live_tokens(step)])
    logs = torch.full_like(lse, torch.nan)
    choice = RaggedChoice(block, tile, 4, 2, power_of_2(geometry.head_dim))
    kept = step.qkv.clone()
    got = ragged(step.qkv, step.planes, step.tables, geometry, step.max_new, logs, choice=choice)
    assert torch.equal(step.qkv, kept)
    torch.testing.assert_close(got.float(), out, atol=absolute, rtol=relative)
    torch.testing.assert_close(logs, lse, atol=absolute, rtol=relative)
    return got


MIXED = ([20, 0, 1, 70, 33], [20, 3, 1, 5, 17])


@pytest.mark.parametrize(
    ("group", "window"), [(1, None), (3, None), (4, None), (1, 1), (3, 24), (4, 24), (4, 1000)]
)
def test_mixed_rows(group, window):
    geometry = geometry_of(group, window=window)
    run(make_step(geometry, *MIXED, gap=8))


HEADS = [(64, 0), (80, 80), (80, 32), (96, 96), (96, 72), (128, 64), (256, 256)]


@pytest.mark.parametrize(("dim", "rotary"), HEADS)
def test_head_sizes_and_partial_rotations(dim, rotary):
    geometry = geometry_of(dim=dim)
    run(make_step(geometry, [37, 4], [7, 1], rotary_dim=rotary))


@pytest.mark.parametrize("rotary", [64, 20])
def test_without_norms(rotary):
    run(make_step(geometry_of(), [37, 4], [7, 1], rotary_dim=rotary, norm=None))


@pytest.mark.parametrize(("group", "kv_heads"), [(1, 9), (5, 3), (16, 1), (24, 1)])
def test_head_ratios(group, kv_heads):
    run(make_step(geometry_of(group, kv_heads=kv_heads), [20, 3], [6, 3]))


@pytest.mark.parametrize("block", [8, 32, 128])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_page_sizes_and_softcap(block, softcap):
    geometry = geometry_of(block=block, softcap=softcap)
    run(make_step(geometry, [150, 9], [20, 9]), tile=32)


def test_rows_that_do_not_write_leave_their_pages_alone():
    step = make_step(geometry_of(), [40, 33, 0], [1, 4, 2], writes=[False, True, True])
    run(step)


def test_half_precision():
    geometry = geometry_of(4, 128, 2)
    step = make_step(geometry, [70, 20], [20, 20], dtype=torch.float16, norm=torch.float16)
    run(step, block=64, tile=32)


@triton.jit
def find(starts, found, rows, GROUP: tl.constexpr, BLOCK: tl.constexpr):
    row, block = locate(starts, rows, tl.program_id(0), GROUP, BLOCK)
    tl.store(found + 2 * tl.program_id(0), row)
    tl.store(found + 2 * tl.program_id(0) + 1, block)


@pytest.mark.parametrize("rows", [1, 129])
def test_a_program_finds_its_row_among_any_number(rows):
    new = [(n * 7) % 3 for n in range(rows)]
    starts = torch.tensor([0, *new]).cumsum(0).int()
    wanted = [[row, block] for row, n in enumerate(new) for block in range(-(-n * 3 // 4))]
    found = torch.full((len(wanted) + 2, 2), -1, dtype=torch.int32)
    find[(len(wanted) + 2,)](starts, found, rows, GROUP=3, BLOCK=4)
    assert found[:-2].tolist() == wanted
    assert found[-2:, 0].tolist() == [rows, rows]


def test_trees_store_at_their_depth_but_do_not_attend_here():
    geometry = geometry_of()
    step = make_step(geometry, [24, 9], [5, 5], trees=True)
    _, planes, _ = expected(step)
    store(step.qkv, step.planes, step.tables, geometry, step.norms, 5)
    torch.testing.assert_close(step.planes[0], planes[0], atol=2e-5, rtol=2e-5, equal_nan=True)
    with pytest.raises(ValueError, match="use decode for trees"):
        ragged(step.qkv, step.planes, step.tables, geometry, 5)


def test_nothing_new_is_no_launch():
    geometry = geometry_of()
    step = make_step(geometry, [], [])
    store(step.qkv, step.planes, step.tables, geometry, None, 0)
    assert ragged(step.qkv, step.planes, step.tables, geometry, 0).shape == (0, 128)


@settings(max_examples=5, deadline=None, derandomize=True)
@given(st.data())
def test_any_rows(data):
    row = st.tuples(st.integers(0, 40), st.integers(1, 20))
    rows = data.draw(st.lists(row, min_size=1, max_size=4))
    padding = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    lengths = [0 if blank else past + new for (past, new), blank in zip(rows, padding, strict=True)]
    window = data.draw(st.sampled_from([None, 3, 17]))
    geometry = geometry_of(data.draw(st.sampled_from([1, 2, 3])), 16, window=window)
    step = make_step(geometry, lengths, [new for _, new in rows], seed=data.draw(st.integers(0, 9)))
    run(step)
