"""Attention over pages: against its twin and the engine's definition; the same bits everywhere."""

from __future__ import annotations

import attention_cases as cases
import pytest
import torch
from attention_cases import ROWS, geometry_of, plan_of, planes_of, qkv_for
from hypothesis import given, settings
from hypothesis import strategies as st

from rtp_kernels.paged_attention.plan import Row
from rtp_kernels_cpu import attention_reference, library
from rtp_kernels_cpu.attention import PagedAttention, fits, paged_attention


def run(attend, rows, geometry, *, norms=None, qkv=None, rotary=None):
    """(out, planes after, lse) of one call."""
    plan = plan_of(rows, geometry, rotary)
    qkv = qkv_for(plan, geometry) if qkv is None else qkv
    planes = planes_of(geometry)
    lse = torch.full((plan.num_tokens, geometry.num_heads), torch.nan)
    kept = qkv.clone()
    out = attend(qkv, planes, plan, geometry, norms, lse)
    assert torch.equal(qkv.view(torch.int16), kept.view(torch.int16))
    return out, planes, lse


def check(rows, geometry, *, softcap=0.0, norm_offset=0.0, **kwargs):
    settings = (softcap, norm_offset)
    got = run(PagedAttention(*settings), rows, geometry, **kwargs)
    wanted = run(attention_reference.PagedAttention(*settings), rows, geometry, **kwargs)
    torch.testing.assert_close(got[0], wanted[0], atol=4e-3, rtol=1e-2)
    torch.testing.assert_close(got[2], wanted[2], atol=3e-4, rtol=1e-5)
    for mine, other in zip(got[1], wanted[1], strict=True):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-2)
    return got


@pytest.mark.parametrize("window", [None, 1, 24, 300])
@pytest.mark.parametrize("name", ROWS)
def test_equals_the_twin(name, window):
    check(ROWS[name], geometry_of(window=window))


@pytest.mark.parametrize("window", [None, 3, 100])
@pytest.mark.parametrize(
    "name", ["decode, long", "ragged", "drafts across splits", "tree", "tree beside a chain"]
)
def test_equals_the_definition_of_the_engine(name, window):
    """In float32: the difference is bfloat16's."""
    from rtp_kernels.paged_attention.plan import AttentionPlan, row_keys
    from rtp_kernels.paged_attention.reference import paged_attention as definition

    geometry, rows = geometry_of(window=window), ROWS[name]
    plan = plan_of(rows, geometry)
    begins = [sum(row.num_new for row in rows[:at]) for at in range(len(rows))]
    keys = tuple(row_keys(row, at, 16, "cpu") for row, at in zip(rows, begins, strict=True))
    slots, tables = torch.tensor(plan.slots), (plan.cos[:, None], plan.sin[:, None])
    dense = AttentionPlan(plan.num_tokens, keys, slots, -1, None, *tables, None)
    planes = tuple(plane.float() for plane in planes_of(geometry))
    wanted = definition(qkv_for(plan, geometry).float(), planes, dense, geometry)
    got, _, _ = run(paged_attention, rows, geometry)
    torch.testing.assert_close(got.float(), wanted, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("dim", [16, 32, 48, 64, 80, 96, 112, 128, 192, 256])
@pytest.mark.parametrize("group", [1, 2, 4, 7])
def test_head_dimensions_and_groups(dim, group):
    geometry = geometry_of(group=group, dim=dim)
    check(ROWS["ragged"], geometry)
    check(ROWS["drafts across splits"], geometry)


@pytest.mark.parametrize("group", [16, 17, 32])
def test_many_query_heads_of_one_kv_head(group):
    check(ROWS["drafts across splits"], geometry_of(group=group, kv_heads=1, dim=32))


@pytest.mark.parametrize("rotary", [16, 32])
def test_dimensions_past_the_rotary_width_pass_through(rotary):
    check(ROWS["ragged"], geometry_of(), rotary=rotary)


@pytest.mark.parametrize("block", [1, 5, 32])
def test_any_block_size(block):
    geometry = geometry_of(block=block)
    rows = [Row(300, 3, cases.scattered(303, block=block)), Row(2, 1, [5, 2, 0][: -(-3 // block)])]
    check(rows, geometry)


@pytest.mark.parametrize("softcap", [1.0, 50.0])
def test_soft_cap(softcap):
    check(ROWS["ragged"], geometry_of(), softcap=softcap)


@pytest.mark.parametrize("norm_offset", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_head_norms(norm_offset, dtype):
    norms = (cases.normal(64, seed=3).to(dtype), cases.normal(64, seed=4).to(dtype), 1e-6)
    check(ROWS["mixed"], geometry_of(), norms=norms, norm_offset=norm_offset)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("dim", [64, 80])
def test_every_instruction_set_and_thread_count_gives_the_same_bits(name, dim):
    geometry = geometry_of(dim=dim, window=290)
    wanted = run(paged_attention, ROWS[name], geometry)
    for level in library.levels():
        library.use_level(level)
        got = run(paged_attention, ROWS[name], geometry)
        for mine, other in zip((got[0], *got[1]), (wanted[0], *wanted[1]), strict=True):
            assert torch.equal(mine, other), level
    library.use_level(library.levels()[0])
    for threads in (2, 3, 4):
        library.set_threads(threads)
        assert torch.equal(run(paged_attention, ROWS[name], geometry)[0], wanted[0])


@pytest.mark.parametrize("window", [None, 100])
def test_drafted_tokens_get_the_bits_of_plain_decoding(window):
    """Tokens 250 ... 260 at once, then one by one, alone and beside another sequence."""
    geometry = geometry_of(window=window)
    blocks = cases.scattered(261)
    plan = plan_of([Row(250, 11, blocks)], geometry)
    qkv, planes = qkv_for(plan, geometry), planes_of(geometry)
    together = paged_attention(qkv, planes, plan, geometry)
    planes = planes_of(geometry)
    for new in range(11):
        alone = [Row(250 + new, 1, blocks), Row(700, 1, cases.run_of(701, 100))]
        plan = plan_of(alone, geometry)
        rows = torch.cat((qkv[new : new + 1], qkv_for(plan, geometry)[1:]))
        single = paged_attention(rows, planes, plan, geometry)
        assert torch.equal(single[0], together[new])


def test_two_halves_give_the_whole():
    geometry = geometry_of()
    plan = plan_of(ROWS["mixed"], geometry)
    qkv, planes = qkv_for(plan, geometry), planes_of(geometry)
    queries = paged_attention.rope_write(qkv, planes, plan, geometry)
    halves = paged_attention.attend(queries, planes, plan, geometry)
    whole, other, _ = run(paged_attention, ROWS["mixed"], geometry)
    assert torch.equal(halves, whole)
    assert all(torch.equal(*pair) for pair in zip(planes, other, strict=True))


def test_keys_of_other_slots_stay_as_they_are():
    geometry = geometry_of()
    rows = ROWS["some write"]
    _, planes, _ = run(paged_attention, rows, geometry)
    changed = (planes[0] != planes_of(geometry)[0]).any(-1).any(0).nonzero().flatten()
    assert changed.tolist() == [165, 166, 167]


def test_blocks_behind_the_window_are_not_read():
    """They may belong to others by now, and hold anything."""
    geometry = geometry_of(window=20)
    blocks = cases.run_of(301, 8)
    plan = plan_of([Row(300, 1, blocks)], geometry)
    qkv, planes = qkv_for(plan, geometry), planes_of(geometry)
    wanted = paged_attention(qkv, planes, plan, geometry)
    for plane in planes:
        plane[:, blocks[0] * 16 : blocks[16] * 16] = torch.nan
    got = paged_attention(qkv, planes, plan, geometry)
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("level", [0, -1])
@pytest.mark.parametrize("name", ["one key", "decode, long", "ragged"])
def test_nan_in_a_query_key_or_value_shows(name, level):
    library.use_level(library.levels()[level])
    geometry = geometry_of()
    plan = plan_of(ROWS[name], geometry)
    heads, kv_heads, dim = geometry.num_heads, geometry.num_kv_heads, geometry.head_dim
    for head in (0, heads, heads + kv_heads):
        qkv = qkv_for(plan, geometry)
        qkv[0, head * dim + 3] = torch.nan
        out, _, lse = run(paged_attention, ROWS[name], geometry, qkv=qkv)
        assert out[0, :dim].isnan().any()
        assert lse[0, 0].isnan() == (head < heads + kv_heads)
        assert out[1:].isfinite().all()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_rows_equal_the_twin(data):
    draw = data.draw
    dim = 16 * draw(st.integers(1, 16))
    window = draw(st.one_of(st.none(), st.integers(1, 400)))
    geometry = geometry_of(draw(st.integers(1, 9)), dim, draw(st.integers(1, 3)), window)
    rows, taken = [], 0
    for number in range(draw(st.integers(1, 4))):
        start, num_new = draw(st.integers(0, 600)), draw(st.integers(1, 8))
        count = -(-(start + num_new) // 16)
        blocks = list(range(taken, taken + count))
        taken += count
        order = draw(st.sampled_from([1, -1]))
        rows.append(Row(start, num_new, blocks[::order], None, number != 2))
    library.set_threads(draw(st.integers(1, 4)))
    check(rows, geometry)


def test_rows_that_do_not_fit_are_refused():
    geometry = geometry_of()
    with pytest.raises(ValueError, match="do not hold"):
        plan_of([Row(16, 1, [3])], geometry)
    with pytest.raises(ValueError, match="at most 64"):
        plan_of([Row(0, 65, cases.run_of(65, 0), [-1] * 65)], geometry)


def test_memory_that_does_not_fit_is_refused():
    geometry = geometry_of()
    plan = plan_of([Row(4, 1, [cases.SLOTS // 16])], geometry)
    qkv, planes = qkv_for(plan, geometry), planes_of(geometry)
    with pytest.raises(ValueError, match="or more"):
        paged_attention(qkv, planes, plan, geometry)
    plan = plan_of(ROWS["decode"], geometry)
    with pytest.raises(ValueError, match="bfloat16"):
        paged_attention(qkv.float(), planes, plan, geometry)
    with pytest.raises(ValueError, match="bfloat16"):
        paged_attention(qkv, (planes[0].float(), planes[1]), plan, geometry)
    with pytest.raises(ValueError, match="same layout"):
        paged_attention(qkv, (planes[0], planes[1].clone()), plan, geometry)
    with pytest.raises(ValueError, match="lse"):
        paged_attention(qkv, planes, plan, geometry, None, torch.zeros(1, 6).double())


def test_head_dimensions_that_do_not_fit_are_named():
    assert not fits(geometry_of(dim=72))
    assert not fits(geometry_of(dim=272))
    assert fits(geometry_of(dim=256))
