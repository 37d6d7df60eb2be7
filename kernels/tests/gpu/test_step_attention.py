"""Rows divided between cuDNN, for which a plain form stands in, and the kernel over pages."""

from __future__ import annotations

from dataclasses import replace

import plain_dense
import pytest
import torch
from checks.attention_steps import expected, make_step
from hypothesis import given, settings
from hypothesis import strategies as st

from rtp_kernels.paged_attention import dense
from rtp_kernels.paged_attention.plan import Geometry
from rtp_kernels.step_attention import parts, reference
from rtp_kernels.step_attention.parts import Part, cut
from rtp_kernels.step_attention.triton import TritonStepAttention

GEOMETRY = Geometry(4, 2, 64, 16, 0.125)
SMALL = {
    "FINE_STEP": 8, "FINE_LENGTH": 64, "MIN_LENGTH": 16, "MIN_TOKENS": 32, "MIN_HEAD": 40,
    "COARSE_STEP": 32, "MAX_PREFIX": 64,
}  # fmt: skip


@pytest.fixture
def small_shapes(monkeypatch):
    """The rules, at sizes that Triton's interpreter can do."""
    for name, value in SMALL.items():
        monkeypatch.setattr(parts, name, value)
    cut.cache_clear()
    yield
    cut.cache_clear()


@pytest.fixture
def calls(monkeypatch):
    """(batch, length, keys, causal) of every call of what stands in for cuDNN."""
    seen = []

    def attend(q, k, v, geometry, logs, causal):
        seen.append((q.shape[0], q.shape[2], k.shape[2], causal))
        return plain_dense.attend(q, k, v, geometry, logs, causal)

    monkeypatch.setattr(dense, "_attend", attend)
    return seen


def attend(runs, geometry=GEOMETRY, hint=True):
    """(of kernels, of the definition) on a random step."""
    new = [one for one, _ in runs]
    lengths = [one + cached for one, cached in runs]
    step = make_step(geometry, lengths, new)
    wanted, _, _ = expected(step)
    form = TritonStepAttention(uses_dense=True)
    form.store(step.qkv, step.planes, step.tables, geometry, step.norms, max(new))
    got = form.ragged(
        step.qkv, step.planes, step.tables, geometry, max(new), tuple(runs) if hint else None
    )
    return got, wanted


CASES = [
    ([(16, 0), (16, 0)], [(2, 16, 16, True)]),
    ([(16, 0), (16, 0), (16, 0), (3, 0)], [(2, 16, 16, True)]),
    ([(40, 0)], [(1, 40, 40, True)]),
    ([(3, 0), (7, 9), (32, 0), (5, 1), (2, 2)], [(1, 32, 32, True)]),
    ([(45, 0), (6, 3)], [(1, 40, 40, True)]),
    ([(39, 0), (50, 1)], []),
    ([(32, 32), (33, 32)], [(1, 32, 32, False), (1, 32, 32, True)]),
    ([(5, 0), (70, 64)], [(1, 64, 64, False), (1, 64, 64, True)]),
    ([(32, 96), (32, 16), (24, 0)], []),
    ([(68, 0)], [(1, 64, 64, True)]),
    ([(1, 0), (1, 4)], []),
]


@pytest.mark.parametrize(("runs", "wanted_calls"), CASES)
def test_results_are_the_definition(runs, wanted_calls, small_shapes, calls):
    got, wanted = attend(runs)
    torch.testing.assert_close(got, wanted, atol=2e-5, rtol=2e-5)
    assert calls == wanted_calls


@pytest.mark.parametrize("geometry", [replace(GEOMETRY, window=20), replace(GEOMETRY, softcap=4.0)])
def test_what_cudnn_does_not_have_is_the_kernels(geometry, small_shapes, calls):
    got, wanted = attend([(16, 0), (16, 0), (40, 0)], geometry)
    torch.testing.assert_close(got, wanted, atol=2e-5, rtol=2e-5)
    assert [length for _, length, _, _ in calls] == ([16] if geometry.window else [])


def test_without_a_hint_the_kernel_takes_all(small_shapes, calls):
    got, wanted = attend([(40, 0), (32, 0)], hint=False)
    torch.testing.assert_close(got, wanted, atol=2e-5, rtol=2e-5)
    assert not calls


def test_keys_stored_in_another_precision_are_read_from_their_pages(small_shapes, calls):
    step = make_step(GEOMETRY, [40], [40])
    planes = step.planes[0].half(), step.planes[1].half()
    form = TritonStepAttention(uses_dense=True)
    form.store(step.qkv, planes, step.tables, GEOMETRY, step.norms, 40)
    form.ragged(step.qkv, planes, step.tables, GEOMETRY, 40, ((40, 0),))
    assert not calls


LENGTHS = st.one_of(st.integers(2, 9000), st.integers(1, 40).map(lambda n: n * 256))
CACHED = st.one_of(st.just(0), st.integers(0, 50).map(lambda n: n * 1024), st.integers(1, 5000))
RUNS = st.lists(st.tuples(LENGTHS, CACHED), max_size=6)


@settings(max_examples=150, deadline=None)
@given(RUNS, st.lists(st.integers(1, 5), min_size=6, max_size=6))
def test_parts_hold_every_token_once_and_in_order(rows, repeats):
    runs = tuple(run for run, n in zip(rows, repeats, strict=False) for run in [run] * n)
    found = cut(runs, GEOMETRY)
    tokens = [(part.first_token, part.first_token + part.tokens) for part in found]
    ends = [0, *(end for _, end in tokens)]
    assert [begin for begin, _ in tokens] == ends[:-1]
    assert ends[-1] == sum(new for new, _ in runs)
    row = 0
    for part in found:
        if part.skip:
            assert part.rows == 1
            assert part.first_row == row - 1
            assert part.tokens == runs[row - 1][0] - part.skip
            continue
        assert part.first_row == row
        taken = runs[row : row + part.rows]
        row += part.rows
        if not part.length:
            assert part.tokens == sum(new for new, _ in taken)
            continue
        assert part.tokens == part.rows * part.length >= parts.MIN_TOKENS
        assert {cached for _, cached in taken} == {part.prefix}
        assert all(new >= part.length for new, _ in taken)
    assert row == len(runs)


def test_shapes_are_few():
    """Whatever comes: every new one costs a plan."""
    lengths = range(1, 8193)
    whole = {
        (part.rows, part.length)
        for new in lengths
        for count in (1, 2, 3, 7, 16)
        if count * new <= 8192
        for part in cut(((new, 0),) * count, GEOMETRY)
        if part.length
    }
    chunks = {
        (part.rows, part.length, part.prefix)
        for new in range(1, 8193, 31)
        for cached in range(16, 32768 - new, 1008)
        for part in cut(((new, cached),), GEOMETRY)
        if part.length
    }
    chunks |= {
        (part.rows, part.length, part.prefix)
        for new in range(1024, 8193, 1024)
        for cached in range(1024, 32768 - new + 1, 1024)
        for part in cut(((new, cached),) * 2, GEOMETRY)
        if part.length
    }
    assert len(whole) <= 55
    assert len(chunks) <= 55
    assert cut(((8192, 0),), GEOMETRY) == (Part(0, 1, 0, 8192, 8192),)


def test_the_definition_refuses_a_hint_that_is_wrong():
    step = make_step(GEOMETRY, [5, 9], [5, 4])
    form = reference.bind("float32")
    form.ragged(step.qkv, step.planes, step.tables, GEOMETRY, 5, ((5, 0), (4, 5)))
    with pytest.raises(ValueError, match=r"\(4, 4\)"):
        form.ragged(step.qkv, step.planes, step.tables, GEOMETRY, 5, ((5, 0), (4, 4)))
