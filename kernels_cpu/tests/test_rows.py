"""Norms and gates of many rows: against their twins, and the same bits everywhere."""

from __future__ import annotations

import kernel_cases as cases
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rtp_kernels_cpu import library, rows
from rtp_kernels_cpu import rows_reference as reference

EPS = 1e-5
SHAPES = [(1, 1), (3, 15), (2, 16), (5, 31), (4, 48), (130, 576), (1, 1537)]
ACTIVATIONS = ("silu", "gelu_tanh")


def normed(module, num_rows, columns, dtype=torch.bfloat16, *, residual=False):
    x, norm = cases.random_rows(num_rows, columns), cases.random_rows(columns, seed=2).to(dtype)
    extra = cases.random_rows(num_rows, columns, seed=3) if residual else None
    return module.rms_norm(x, norm, EPS, extra)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("residual", [False, True])
def test_norm_equals_the_twin(shape, dtype, residual):
    got = normed(rows, *shape, dtype, residual=residual)
    wanted = normed(reference, *shape, dtype, residual=residual)
    torch.testing.assert_close(got, wanted, rtol=2**-7, atol=2**-8 if residual else 1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gate_equals_the_twin(shape, activation):
    both = cases.random_rows(shape[0], 2 * shape[1]) * 4
    got, wanted = rows.gate(both, activation), reference.gate(both, activation)
    assert got.dtype == wanted.dtype == torch.bfloat16
    torch.testing.assert_close(got, wanted, rtol=2**-7, atol=1e-5)  # 1 + tanh(u) cancels there


@settings(max_examples=60, deadline=None)
@given(
    num_rows=st.integers(0, 40),
    columns=st.integers(1, 200),
    threads=st.integers(1, 4),
    activation=st.sampled_from(ACTIVATIONS),
    residual=st.booleans(),
)
def test_any_shape_has_the_same_bits_on_every_instruction_set_and_thread_count(
    num_rows, columns, threads, activation, residual
):
    both = cases.random_rows(num_rows, 2 * columns)
    library.use_level(library.levels()[0])
    library.set_threads(1)
    wanted = normed(rows, num_rows, columns, residual=residual), rows.gate(both, activation)
    library.set_threads(threads)
    for level in library.levels():
        library.use_level(level)
        assert torch.equal(normed(rows, num_rows, columns, residual=residual), wanted[0])
        assert torch.equal(rows.gate(both, activation), wanted[1])


def test_a_row_does_not_depend_on_the_others():
    x, norm = cases.random_rows(300, 100), cases.random_rows(100, seed=2)
    library.set_threads(3)
    whole, gated = rows.rms_norm(x, norm, EPS), rows.gate(x)
    for begin, end in ((0, 1), (7, 40), (299, 300)):
        assert torch.equal(rows.rms_norm(x[begin:end], norm, EPS), whole[begin:end])
        assert torch.equal(rows.gate(x[begin:end]), gated[begin:end])


def test_rows_that_are_apart_or_begin_anywhere_are_read_right():
    wide = cases.random_rows(20, 301)
    x, norm = wide[::2, 3:101], cases.random_rows(199, seed=2)[1:99]
    assert torch.equal(
        rows.rms_norm(x, norm, EPS), rows.rms_norm(x.contiguous(), norm.clone(), EPS)
    )
    assert torch.equal(rows.gate(x), rows.gate(x.contiguous()))
    odd = torch.empty(601, dtype=torch.bfloat16)[1:].view(6, 100).copy_(wide[:6, :100])
    assert torch.equal(rows.gate(odd), rows.gate(wide[:6, :100]))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_shows_in_its_row_only(value):
    x = cases.random_rows(3, 40)
    x[1, 7] = value
    done = rows.rms_norm(x, cases.random_rows(40, seed=2), EPS)
    assert done[1].isnan().any()
    assert done[[0, 2]].isfinite().all()
    gated = rows.gate(x)
    assert not gated[1].isfinite().all()
    assert gated[[0, 2]].isfinite().all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_large_gates_pass_or_close(activation):
    gates = torch.tensor([[3e38, 200.0, 90.0, -90.0, -200.0, -3e38]]).bfloat16()
    done = rows.gate(torch.cat((gates, torch.ones_like(gates)), dim=1), activation)
    assert torch.equal(done, gates.clamp(min=0.0))


def test_rows_of_zeros_stay_zeros():
    x = torch.zeros(4, 33).bfloat16()
    assert not rows.rms_norm(x, torch.ones(33).bfloat16(), EPS).any()
    assert not rows.gate(torch.zeros(4, 66).bfloat16()).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, norm: rows.rms_norm(x.float(), norm, EPS), "bfloat16"),
        (lambda x, norm: rows.rms_norm(x[0], norm, EPS), r"\[rows, columns\]"),
        (lambda x, norm: rows.rms_norm(x, norm[:5], EPS), r"\[8\]"),
        (lambda x, norm: rows.rms_norm(x, norm.half(), EPS), "float32"),
        (lambda x, norm: rows.rms_norm(x, norm, EPS, x[:1]), "residual"),
        (lambda x, norm: rows.gate(x[:, :7]), "7 columns"),
        (lambda x, norm: rows.gate(x.to("meta")), "on the CPU"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(cases.random_rows(2, 8), cases.random_rows(8))
