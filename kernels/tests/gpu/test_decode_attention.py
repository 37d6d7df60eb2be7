"""Decoding and verification over pages, in Triton's interpreter, against the definition."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from checks.attention_steps import expected, make_step

from rtp_kernels.paged_attention.choice import DecodeChoice, choose, power_of_2
from rtp_kernels.paged_attention.decode import decode
from rtp_kernels.paged_attention.plan import Geometry
from rtp_kernels.paged_attention.tables import Scratch

TOLERANCE = {torch.float32: (2e-5, 2e-5), torch.float16: (3e-3, 3e-3)}


def geometry_of(group=2, dim=64, kv_heads=2, *, block=16, window=None, softcap=None):
    return Geometry(group * kv_heads, kv_heads, dim, block, dim**-0.5, window, softcap)


def choice_of(geometry, new=1, *, tile=16, splits=4, early=False, rows=None):
    wanted = new * geometry.group
    query_rows = rows or min(64, max(16, power_of_2(wanted)))
    tiles = -(-wanted // query_rows)
    return DecodeChoice(query_rows, tiles, power_of_2(geometry.head_dim), tile, 4, 2, splits, early)


def check(step, choice, new=1):
    """Run, compare outputs, log-sum-exps, every slot of the planes, and the counters."""
    dtype = step.qkv.dtype
    out, planes, lse = expected(step)
    rows = len(step.new)
    programs = rows * step.geometry.num_kv_heads * choice.tiles
    scratch = Scratch.allocate(programs, choice.splits, choice.query_rows, choice.width, "cpu")
    scratch.partial.fill_(torch.nan)
    scratch.stats.fill_(torch.nan)
    logs = torch.full_like(lse, torch.nan)
    kept = step.qkv.clone()
    got = decode(
        step.qkv, step.planes, step.tables, step.geometry, step.norms, new, scratch, logs,
        context=64, choice=choice,
    )  # fmt: skip
    absolute, relative = TOLERANCE[dtype]
    torch.testing.assert_close(got.float(), out, atol=absolute, rtol=relative)
    torch.testing.assert_close(logs, lse, atol=absolute, rtol=relative)
    for plane, wanted in zip(step.planes, planes, strict=True):
        torch.testing.assert_close(
            plane.float(), wanted, atol=absolute, rtol=relative, equal_nan=True
        )
    assert not scratch.counters.any()
    assert torch.equal(step.qkv, kept)
    return got


LENGTHS = [1, 16, 17, 18, 64, 65, 0, 80]


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("splits", [1, 4])
@pytest.mark.parametrize("window", [None, 20])
def test_lengths_around_tiles_and_splits(splits, early, window):
    geometry = geometry_of(kv_heads=1, window=window)
    step = make_step(geometry, LENGTHS, [1] * len(LENGTHS), gap=8)
    check(step, choice_of(geometry, splits=splits, early=early))


HEADS = [(64, 64), (64, 0), (80, 80), (80, 32), (96, 96), (96, 72), (128, 64), (256, 256)]


@pytest.mark.parametrize(("dim", "rotary"), HEADS)
def test_head_sizes_and_partial_rotations(dim, rotary):
    geometry = geometry_of(dim=dim, kv_heads=1)
    step = make_step(geometry, [33, 4], [1, 1], rotary_dim=rotary)
    check(step, choice_of(geometry, splits=2))
    step = make_step(geometry, [33, 4], [3, 3], rotary_dim=rotary)
    check(step, choice_of(geometry, 3, splits=2), 3)


@pytest.mark.parametrize("window", [1, 1000])
def test_windows_of_one_key_and_of_more_than_there_are(window):
    geometry = geometry_of(kv_heads=1, window=window)
    step = make_step(geometry, [1, 2, 40], [1, 1, 1])
    check(step, choice_of(geometry, splits=2, early=True))


@pytest.mark.parametrize("rotary", [64, 20])
def test_without_norms(rotary):
    geometry = geometry_of(kv_heads=1)
    for new in (1, 3):
        step = make_step(geometry, [33, 4], [new] * 2, rotary_dim=rotary, norm=None)
        check(step, choice_of(geometry, new, splits=2), new)


@pytest.mark.parametrize(("group", "kv_heads"), [(1, 3), (3, 2), (8, 1), (12, 1), (16, 1), (24, 1)])
def test_head_ratios(group, kv_heads):
    geometry = geometry_of(group, kv_heads=kv_heads)
    step = make_step(geometry, [40, 1, 0], [1, 1, 1])
    check(step, choice_of(geometry, splits=2))


@pytest.mark.parametrize("block", [8, 32, 64, 128])
def test_page_sizes(block):
    geometry = geometry_of(block=block)
    step = make_step(geometry, [150, 7], [1, 1], gap=16)
    check(step, choice_of(geometry, tile=32))


@pytest.mark.parametrize("softcap", [0.5, 30.0])
@pytest.mark.parametrize("new", [1, 4])
def test_softcap(softcap, new):
    geometry = geometry_of(softcap=softcap)
    step = make_step(geometry, [40, 5], [new] * 2)
    check(step, choice_of(geometry, new, splits=2, early=True), new)


@pytest.mark.parametrize("trees", [False, True])
@pytest.mark.parametrize(("new", "window"), [(2, None), (5, 3), (7, 24), (16, None), (16, 9)])
def test_verification(new, window, trees):
    geometry = geometry_of(kv_heads=1, window=window)
    lengths = [new, new + 15, new + 16, 0, 90, new + 17]
    step = make_step(geometry, lengths, [new] * len(lengths), trees=trees, seed=new)
    check(step, choice_of(geometry, new, early=new == 5), new)


@pytest.mark.parametrize("splits", [1, 2])
def test_queries_in_several_programs_store_once_and_agree(splits):
    geometry = geometry_of(6, kv_heads=2)
    step = make_step(geometry, [60, 9, 0], [8] * 3, trees=True)
    check(step, choice_of(geometry, 8, splits=splits, rows=16), 8)


def test_many_splits():
    geometry = geometry_of(9, kv_heads=1)
    step = make_step(geometry, [200, 3], [1, 1])
    check(step, choice_of(geometry, splits=16))


@pytest.mark.parametrize("new", [1, 3])
def test_rows_that_do_not_write_leave_their_pages_alone(new):
    geometry = geometry_of()
    step = make_step(geometry, [40, 33, 0], [new] * 3, writes=[False, True, True])
    check(step, choice_of(geometry, new), new)


def test_half_precision_with_half_precision_norms():
    geometry = geometry_of(4, 128)
    step = make_step(geometry, [70, 20], [1, 1], dtype=torch.float16, norm=torch.float16)
    check(step, choice_of(geometry, tile=32))
    step = make_step(geometry, [70, 20], [4, 4], dtype=torch.float16, trees=True)
    check(step, choice_of(geometry, 4, tile=32), 4)


@pytest.mark.parametrize("new", [1, 4])
def test_choices_of_the_table_run(new):
    geometry = geometry_of(4, 128)
    step = make_step(geometry, [130, 0, 67], [new] * 3)
    check(step, choose(geometry, 3, new, 160), new)


def test_planes_may_have_a_page_stride_of_their_own():
    geometry = geometry_of()
    step = make_step(geometry, [50, 20], [1, 1])
    out, after, _ = expected(step)
    pages = step.planes[0].shape[1] // 16
    apart = tuple(torch.full((2, pages, 24, 64), torch.nan)[:, :, :16] for _ in range(2))
    for mine, plane in zip(apart, step.planes, strict=True):
        mine.copy_(plane.unflatten(1, (pages, 16)))
    choice = choice_of(geometry, splits=1)
    scratch = Scratch.for_steps(geometry, [(2, 1, 64)], "cpu")
    got = decode(
        step.qkv, apart, step.tables, geometry, step.norms, 1, scratch, context=64, choice=choice
    )
    torch.testing.assert_close(got, out, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(apart[0].flatten(1, 2), after[0], equal_nan=True)


def test_no_rows_is_no_launch():
    geometry = geometry_of()
    step = make_step(geometry, [], [])
    scratch = Scratch.for_steps(geometry, [(1, 1, 64)], "cpu")
    got = decode(step.qkv, step.planes, step.tables, geometry, None, 1, scratch, context=64)
    assert got.shape == (0, 256)


@pytest.mark.parametrize("new", [0, 17])
def test_too_many_new_tokens_are_refused(new):
    geometry = geometry_of()
    step = make_step(geometry, [40], [1])
    scratch = Scratch.for_steps(geometry, [(1, 1, 64)], "cpu")
    with pytest.raises(ValueError, match=f"new_tokens is {new}: decode takes 1 to 16"):
        decode(step.qkv, step.planes, step.tables, geometry, None, new, scratch, context=64)


def test_a_small_scratch_is_refused_by_name():
    geometry = geometry_of()
    step = make_step(geometry, [40], [1])
    choice = choice_of(geometry)
    small = Scratch.allocate(2, 2, 16, 64, "cpu")
    with pytest.raises(
        ValueError, match=r"scratch.partial has 4096 elements, this step needs 8192"
    ):
        decode(
            step.qkv, step.planes, step.tables, geometry, None, 1, small, context=64, choice=choice
        )


def test_planes_of_different_strides_and_trees_without_depths_are_refused():
    geometry = geometry_of()
    step = make_step(geometry, [40], [2], trees=True)
    scratch = Scratch.for_steps(geometry, [(1, 2, 64)], "cpu")
    other = torch.zeros(step.planes[1].shape[1], 2, 64).transpose(0, 1)
    with pytest.raises(ValueError, match="K and V planes have strides"):
        decode(
            step.qkv, (step.planes[0], other), step.tables, geometry, None, 2, scratch, context=64
        )
    with pytest.raises(ValueError, match="without depths"):
        decode(
            step.qkv, step.planes, replace(step.tables, depths=None), geometry, None, 2, scratch,
            context=64,
        )  # fmt: skip


def test_scratch_serves_the_largest_step_and_resets():
    geometry = geometry_of(4, 128, 8)
    shapes = list(itertools.product((1, 8, 64), (1, 5), (256, 32768)))
    scratch = Scratch.for_steps(geometry, shapes, "cpu")
    for rows, new, context in shapes:
        picked = choose(geometry, rows, new, context)
        programs = rows * 8 * picked.tiles
        assert scratch.counters.numel() >= programs
        if picked.splits > 1:
            needed = programs * picked.splits * picked.query_rows
            assert scratch.partial.numel() >= needed * picked.width
            assert scratch.stats.numel() >= needed * 2
    scratch.counters[3] = 1
    scratch.reset()
    assert not scratch.counters.any()


@pytest.mark.parametrize(
    ("rows", "new", "context", "wanted"),
    [
        (1, 1, 1024, (64, 2, 2, 16, True)),
        (4, 1, 1024, (64, 2, 2, 16, True)),
        (8, 1, 1024, (64, 2, 2, 8, True)),
        (16, 1, 1024, (64, 4, 3, 4, False)),
        (32, 1, 1024, (64, 4, 4, 2, False)),
        (64, 1, 1024, (64, 4, 2, 1, False)),
        (256, 1, 1024, (64, 4, 2, 1, False)),
        (64, 1, 8192, (64, 4, 3, 4, False)),
        (128, 1, 8192, (64, 4, 3, 1, False)),
        (8, 1, 8192, (64, 2, 3, 8, True)),
        (32, 1, 8192, (64, 4, 4, 2, False)),
        (1, 1, 8192, (64, 2, 3, 32, True)),
        (1, 1, 32768, (64, 2, 3, 64, True)),
        (1, 4, 1024, (128, 4, 2, 8, False)),
        (1, 5, 1024, (64, 4, 2, 8, False)),
        (8, 4, 1024, (64, 2, 2, 8, False)),
        (8, 5, 1024, (64, 4, 2, 4, False)),
        (32, 5, 1024, (64, 4, 3, 2, False)),
    ],
)
def test_measured_shapes_get_the_measured_form(rows, new, context, wanted):
    picked = choose(geometry_of(4, 128, 8), rows, new, context)
    got = (picked.tile, picked.warps, picked.stages, picked.splits, picked.early)
    assert got == wanted


def test_a_window_limits_the_splits():
    wide, narrow = geometry_of(4, 128, 8), geometry_of(4, 128, 8, window=128)
    assert choose(wide, 1, 1, 32768).splits == 64
    assert choose(narrow, 1, 1, 32768).splits == 2
