"""Attention of rows with many new tokens, by every kernel this processor can run."""

from __future__ import annotations

import attention_cases as cases
import pytest
import torch
from attention_cases import geometry_of, plan_of, planes_of, qkv_for, run_of, scattered
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtp_kernels.paged_attention.plan import Row
from rtp_kernels_cpu import attention_reference, library
from rtp_kernels_cpu.attention import PagedAttention, paged_attention

KERNELS = ("amx", "avx512_bf16")

ROWS = {
    "one block": [Row(0, 20, run_of(20, 3))],
    "a query block to the token": [Row(0, 32, run_of(32, 3))],
    "whole": [Row(0, 300, run_of(300, 3))],
    "scattered": [Row(0, 290, scattered(290))],
    "chunk": [Row(130, 150, scattered(280))],
    "chunk at a block's end": [Row(128, 128, run_of(256, 7))],
    "unequal": [Row(0, 40, run_of(40, 0)), Row(7, 170, scattered(177)), Row(0, 17, [200, 90])],
    "beside decoding": [Row(300, 1, run_of(301, 9)), Row(0, 90, run_of(90, 40)), Row(4, 3, [1])],
    "beside a tree": [Row(0, 33, run_of(33, 3)), Row(9, 4, [100], [-1, 0, 0, 1])],
    "a long tree": [Row(9, 18, run_of(27, 1), [-1, *range(17)]), Row(0, 50, run_of(50, 60))],
    "computes only": [Row(30, 40, run_of(70, 3), writes=False)],
}


@pytest.fixture(autouse=True, params=KERNELS)
def kernel(request, native):
    if request.param not in library.prefill_kernels():
        pytest.skip(f"no {request.param} here")
    library.use_prefill_kernel(request.param)
    yield request.param
    library.use_prefill_kernel(library.prefill_kernels()[0])


def run(attend, rows, geometry, norms=None, qkv=None):
    """(out, planes after, lse) of one call."""
    plan = plan_of(rows, geometry)
    planes, qkv = planes_of(geometry), qkv_for(plan, geometry) if qkv is None else qkv
    lse = torch.full((plan.num_tokens, geometry.num_heads), torch.nan)
    return attend(qkv, planes, plan, geometry, norms, lse), planes, lse


def check(rows, geometry, softcap=0.0, norms=None):
    """Weights are rounded to bfloat16 before they meet the values, as in torch's form."""
    got = run(PagedAttention(softcap), rows, geometry, norms)
    wanted = run(attention_reference.PagedAttention(softcap), rows, geometry, norms)
    torch.testing.assert_close(got[0], wanted[0], atol=8e-3, rtol=1.6e-2)
    torch.testing.assert_close(got[2], wanted[2], atol=2e-3, rtol=1e-4)
    error = (got[0].float() - wanted[0].float()).norm() / wanted[0].float().norm()
    assert error < 4e-3


@pytest.mark.parametrize("window", [None, 1, 40, 129])
@pytest.mark.parametrize("name", ROWS)
def test_equals_the_twin(name, window):
    check(ROWS[name], geometry_of(window=window))


@pytest.mark.parametrize("dim", [16, 32, 48, 64, 80, 112, 128, 256])
@pytest.mark.parametrize("group", [1, 3, 7, 40])
def test_head_dimensions_and_groups(dim, group):
    check(ROWS["unequal"], geometry_of(group=group, dim=dim))


@pytest.mark.parametrize("block", [1, 5, 32])
def test_any_block_size(block):
    check([Row(100, 150, scattered(250, block=block))], geometry_of(block=block))


@pytest.mark.parametrize("softcap", [1.0, 50.0])
def test_soft_cap(softcap):
    check(ROWS["unequal"], geometry_of(window=100), softcap)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_head_norms(dtype):
    norms = (cases.normal(64, seed=3).to(dtype), cases.normal(64, seed=4).to(dtype), 1e-6)
    check(ROWS["chunk"], geometry_of(), norms=norms)


def test_scores_far_apart_neither_overflow_nor_vanish():
    """One key outweighs all others by far more than a float's exponent holds."""
    geometry = geometry_of(kv_heads=1, group=1)
    plan, planes = plan_of(ROWS["whole"], geometry), planes_of(geometry)
    qkv = qkv_for(plan, geometry) * 40
    wanted = attention_reference.PagedAttention()(qkv, planes_of(geometry), plan, geometry)
    got = paged_attention(qkv, planes, plan, geometry)
    torch.testing.assert_close(got, wanted, atol=1.0, rtol=2e-2)
    assert got.isfinite().all()


@pytest.mark.parametrize("window", [None, 100])
@pytest.mark.parametrize("size", [17, 64, 100, 299])
def test_a_query_has_the_same_bits_in_any_chunk_and_company(size, window):
    geometry = geometry_of(window=window)
    blocks = scattered(300)
    qkv = qkv_for(plan_of([Row(0, 300, blocks)], geometry), geometry)
    whole, _, _ = run(paged_attention, [Row(0, 300, blocks)], geometry, qkv=qkv)
    planes, begin = planes_of(geometry), 0
    free = sorted(set(range(256)) - set(blocks))
    while 300 - begin > 16:
        end = min(300, begin + size)
        rows = [Row(begin, end - begin, blocks), Row(0, 30, free[:2])]
        plan = plan_of(rows, geometry)
        part = torch.cat((qkv[begin:end], qkv[:30]))
        done = paged_attention(part, planes, plan, geometry)[: end - begin]
        assert torch.equal(done, whole[begin:end]) or end - begin <= 16
        begin = end


@pytest.mark.parametrize("name", ROWS)
def test_threads_do_not_change_a_bit(name):
    geometry = geometry_of(window=150)
    wanted = run(paged_attention, ROWS[name], geometry)
    for threads in (2, 3, 4):
        library.set_threads(threads)
        got = run(paged_attention, ROWS[name], geometry)
        assert torch.equal(got[0], wanted[0])
        assert torch.equal(got[2], wanted[2])


def test_keys_of_many_heads_are_packed_in_turn():
    """More than the working memory takes at once."""
    geometry = geometry_of(group=1, dim=256, kv_heads=6)
    check([Row(0, 20, run_of(20, 250)), Row(3500, 30, run_of(3530, 0))], geometry)


def test_slots_that_hold_no_visible_key_may_hold_anything():
    geometry = geometry_of(window=20)
    rows = [Row(400, 20, run_of(420, 8))]
    plan = plan_of(rows, geometry)
    qkv, planes = qkv_for(plan, geometry), planes_of(geometry)
    wanted = paged_attention(qkv, planes, plan, geometry)
    for plane in planes:
        plane[:, : 8 * 16 + 256] = torch.nan
        plane[:, 8 * 16 + 420 :] = torch.nan
    assert torch.equal(paged_attention(qkv, planes, plan, geometry), wanted)


def test_nan_shows_in_its_row_and_in_no_other():
    geometry = geometry_of()
    rows = [Row(0, 40, run_of(40, 3)), Row(0, 50, run_of(50, 10))]
    plan = plan_of(rows, geometry)
    heads, kv_heads, dim = geometry.num_heads, geometry.num_kv_heads, geometry.head_dim
    for head in (0, heads, heads + kv_heads):
        qkv = qkv_for(plan, geometry)
        qkv[5, head * dim + 3] = torch.nan
        out, _, _ = run(paged_attention, rows, geometry, qkv=qkv)
        assert out[5, :dim].isnan().any()
        assert out[40:].isfinite().all()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_rows_equal_the_twin(data):
    draw = data.draw
    window = draw(st.one_of(st.none(), st.integers(1, 300)))
    geometry = geometry_of(
        draw(st.integers(1, 9)), 16 * draw(st.integers(1, 8)), draw(st.integers(1, 3)), window
    )
    rows, taken = [], 0
    for _ in range(draw(st.integers(1, 4))):
        start, new = draw(st.integers(0, 200)), draw(st.integers(1, 200))
        rows.append(Row(start, new, run_of(start + new, taken)))
        taken += -(-(start + new) // 16)
    library.set_threads(draw(st.integers(1, 3)))
    check(rows, geometry)


def test_without_a_kernel_long_rows_are_as_the_others():
    geometry = geometry_of()
    library.use_prefill_kernel("")
    check(ROWS["unequal"], geometry)


def test_an_unknown_kernel_is_refused_with_those_there_are(kernel):
    with pytest.raises(ValueError, match=kernel):
        library.use_prefill_kernel("abacus")
