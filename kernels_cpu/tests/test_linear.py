"""Linear layers: against their twins, and the same bits everywhere."""

from __future__ import annotations

import kernel_cases as cases
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rtp_kernels.linear_weight import quantize
from rtp_kernels_cpu import library, linear
from rtp_kernels_cpu import linear_reference as reference
from rtp_kernels_cpu.linear import GEMMA, LLAMA
from rtp_kernels_cpu.weights import pack

EPS = 1e-5
ROWS = [*range(1, 18), 33, 64]
OPERATIONS = ("linear", "norm_linear", "linear_residual", "norm_gate_up", "head")


def arguments(operation, tokens, columns, width, kind="q4_1", bias=False, variant=LLAMA):
    """Positional arguments of an operation with random data."""
    rows = 2 * width if operation == "norm_gate_up" else width
    weight = cases.random_weight(rows, columns, kind, rows // width)
    x = cases.random_rows(tokens, columns)
    norm = cases.random_rows(columns, seed=2)
    extra = cases.random_rows(rows, seed=3) if bias else None
    if operation == "linear":
        return [x, weight, extra]
    if operation == "linear_residual":
        return [x, weight, cases.random_rows(tokens, width, seed=4), extra]
    if operation == "head":
        return [x, norm, EPS, weight, variant]
    return [x, norm, EPS, weight, extra, variant]


def check(operation, *args, **kwargs):
    given = arguments(operation, *args, **kwargs)
    actual = getattr(linear, operation)(*given)
    cases.assert_close(actual, getattr(reference, operation)(*given))
    return actual


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("kind", cases.ALL_KINDS)
def test_operations_equal_their_twins(operation, kind):
    for tokens, columns, width in ((1, 64, 48), (3, 96, 37), (9, 576, 80)):
        check(operation, tokens, columns, width, kind)


@pytest.mark.parametrize("tokens", ROWS)
def test_every_number_of_rows_equals_the_twin(tokens):
    check("norm_linear", tokens, 160, 53, bias=True)


@pytest.mark.parametrize("operation", ["linear", "norm_linear", "linear_residual", "norm_gate_up"])
def test_biases_are_added(operation):
    for width in (32, 41):
        check(operation, 5, 64, width, bias=True)


@pytest.mark.parametrize("operation", ["norm_linear", "norm_gate_up", "head"])
def test_norms_may_be_float32(operation):
    given = arguments(operation, 3, 128, 45)
    given[1] = torch.randn(128, generator=torch.Generator().manual_seed(2)) + 1
    actual = getattr(linear, operation)(*given)
    cases.assert_close(actual, getattr(reference, operation)(*given))


@pytest.mark.parametrize("operation", ["norm_linear", "norm_gate_up", "head"])
def test_gemma_norm_and_activation(operation):
    check(operation, 3, 128, 45, variant=GEMMA)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("kind", cases.ALL_KINDS)
def test_every_instruction_set_gives_the_same_bits(operation, kind):
    for tokens in (1, 2, 4, 7, 8, 11):
        given = arguments(operation, tokens, 160, 53, kind)
        results = {}
        for name in library.levels():
            library.use_level(name)
            results[name] = getattr(linear, operation)(*given)
        for name, result in results.items():
            assert torch.equal(result, results["scalar"]), name


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("kind", ["q4_1", "bf16"])
def test_a_row_does_not_depend_on_other_rows_or_threads(operation, kind):
    given = arguments(operation, 17, 576, 320, kind)
    whole = getattr(linear, operation)(*given)
    for threads in (2, 3, 4):
        library.set_threads(threads)
        assert torch.equal(getattr(linear, operation)(*given), whole)
    for begin, end in ((0, 1), (3, 8), (5, 17)):
        part = [given[0][begin:end], *given[1:]]
        if operation == "linear_residual":
            part[2] = given[2][begin:end]
        assert torch.equal(getattr(linear, operation)(*part), whole[begin:end])


@settings(max_examples=60, deadline=None)
@given(
    operation=st.sampled_from(OPERATIONS),
    kind=st.sampled_from(cases.ALL_KINDS),
    tokens=st.integers(1, 20),
    groups=st.integers(1, 12),
    width=st.integers(1, 130),
    bias=st.booleans(),
    threads=st.integers(1, 4),
    level=st.integers(0, 3),
)
def test_any_shape_equals_the_twin(operation, kind, tokens, groups, width, bias, threads, level):
    library.set_threads(threads)
    library.use_level(library.levels()[min(level, len(library.levels()) - 1)])
    check(operation, tokens, 32 * groups, width, kind, bias)


@pytest.mark.parametrize("level", [0, -1])
@pytest.mark.parametrize("kind", ["q4_1", "bf16"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_shows_in_its_row_only(value, level, kind):
    library.use_level(library.levels()[level])
    x, weight, _ = arguments("linear", 3, 96, 20, kind)
    clean = linear.linear(x, weight)
    x[1, 40] = value
    out = linear.linear(x, weight)
    assert not out[1].isfinite().any()
    assert torch.equal(out[0], clean[0])
    assert torch.equal(out[2], clean[2])
    normed = linear.norm_linear(x, cases.random_rows(96), EPS, weight)
    assert normed[1].isnan().all()
    assert normed[[0, 2]].isfinite().all()


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_extreme_codes_and_activations_do_not_overflow(bits, symmetric):
    """Largest magnitudes of both signs in all lanes: sums stay within their integers."""
    codes = quantize(torch.randn(16, 64, generator=torch.Generator().manual_seed(0)), bits)
    if symmetric:
        codes.minimum.copy_(codes.scale * -(2 ** (bits - 1)))
    for code in (0, 2**bits - 1):
        codes.q.fill_(code)
        weight = pack(codes)
        for sign in (1.0, -1.0):
            x = torch.full((1, 64), sign * 127.0).bfloat16()
            wanted = sign * codes.dense().sum(1)[None]
            for name in library.levels():
                library.use_level(name)
                actual = linear.head(x, torch.ones(64).bfloat16(), 0.0, weight)
                torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-3)


def test_rows_of_zeros_and_tiny_values_give_the_bias():
    weight = pack(cases.random_codes(24, 64, "q4_1"))
    bias = cases.random_rows(24)
    x = torch.zeros(2, 64).bfloat16()
    x[1] = 1e-38
    assert torch.equal(linear.linear(x, weight, bias), bias.expand(2, -1))


def test_no_rows_give_no_rows():
    weight = pack(cases.random_codes(24, 64, "q4_1"))
    assert linear.linear(torch.empty(0, 64).bfloat16(), weight).shape == (0, 24)


def test_the_error_against_float32_stays_below_one_percent():
    dense = torch.randn(256, 576, generator=torch.Generator().manual_seed(0)) * 576**-0.5
    for bits in (4, 8):
        codes = quantize(dense, bits)
        x = cases.random_rows(8, 576)
        wanted = x.float() @ codes.dense().T
        error = linear.linear(x, pack(codes)).float() - wanted
        assert error.norm() / wanted.norm() < 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.float(), "bfloat16"),
        (lambda x: x[:, :32], r"\[tokens, 64\]"),
        (lambda x: x.repeat(1, 2)[:, ::2], "contiguous"),
        (lambda x: x[None], r"\[tokens, 64\]"),
        (lambda x: x.to("meta"), "on the CPU"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(change, message):
    weight = pack(cases.random_codes(24, 64, "q4_1"))
    with pytest.raises(ValueError, match=message):
        linear.linear(change(cases.random_rows(2, 64)), weight)


def test_gate_and_up_must_be_packed_in_two_parts():
    norm, x = cases.random_rows(64), cases.random_rows(2, 64)
    one = pack(cases.random_codes(48, 64, "q4_1"))
    with pytest.raises(ValueError, match="2 parts"):
        linear.norm_gate_up(x, norm, EPS, one)
    two = pack(cases.random_codes(48, 64, "q4_1"), parts=2)
    with pytest.raises(ValueError, match="norm_gate_up"):
        linear.linear(x, two)
