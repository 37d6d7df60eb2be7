"""Norms and linear layers: CPU forms against the definitions, and float32 bits of a row."""

from __future__ import annotations

import pytest
import torch

from rtp_kernels.invariant import invariant_linear
from rtp_kernels.norm_linear.cpu import rms_norm as fused_rms_norm
from rtp_kernels.norm_linear.reference import rms_norm
from rtp_kernels.registry import resolve

EPS = 1e-5
TOLERANCE = {"float32": (1e-5, 1e-5), "bfloat16": (3e-2, 3e-2)}


def random(*shape, dtype="float32", seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator).to(getattr(torch, dtype))


def arguments(operation, rows, hidden, width, dtype, *, bias=False):
    """The operation's arguments; weights scaled so that outputs are of order one."""
    x = random(rows, hidden, dtype=dtype)
    norm = random(hidden, dtype=dtype, seed=1)
    outputs = 2 * width if operation.startswith("norm_gate_up") else width
    weight = random(outputs, hidden, dtype=dtype, seed=2) * hidden**-0.5
    extra = random(outputs, dtype=dtype, seed=3) if bias else None
    residual = random(rows, width, dtype=dtype, seed=4)
    if operation == "linear_residual":
        return [x, weight, residual, extra]
    if operation == "linear_norm_residual":
        return [x, weight, random(width, dtype=dtype, seed=1), EPS, residual, extra]
    return [x, norm, EPS, weight, extra]


OPERATIONS = (
    "norm_linear",
    "linear_residual",
    "norm_gate_up",
    "norm_gate_up_gelu",
    "linear_norm_residual",
)
NORMED = {"norm_linear": 1, "norm_gate_up_gelu": 1, "linear_norm_residual": 2}


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("rows", "hidden", "width"), [(1, 64, 96), (17, 48, 33), (70, 100, 2)])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_cpu_form_equals_the_definition(operation, rows, hidden, width, bias, dtype):
    given = arguments(operation, rows, hidden, width, dtype, bias=bias)
    expected = resolve(operation, "anything", dtype)(*given)
    got = resolve(operation, "cpu", dtype)(*given)
    absolute, relative = TOLERANCE[dtype]
    assert got.dtype == expected.dtype
    torch.testing.assert_close(got, expected, atol=absolute, rtol=relative)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_strided_rows_are_read_right(operation):
    given = arguments(operation, 12, 64, 96, "float32")
    wide = random(24, 128)
    wide[::2, :64] = given[0]
    expected = resolve(operation, "cpu", "float32")(*given)
    got = resolve(operation, "cpu", "float32")(wide[::2, :64], *given[1:])
    assert torch.equal(got, expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_argument_is_changed(operation, dtype):
    given = arguments(operation, 5, 32, 48, dtype, bias=True)
    kept = [one.clone() if isinstance(one, torch.Tensor) else one for one in given]
    resolve(operation, "cpu", dtype)(*given)
    for one, before in zip(given, kept, strict=True):
        if isinstance(one, torch.Tensor):
            assert torch.equal(one, before)


# 1536 inputs and more are where threads split the sum of a plain product; a width that is no
# multiple of the vector length is where elementwise functions change their path.
@pytest.mark.parametrize(
    ("operation", "hidden", "width"),
    [
        ("norm_linear", 576, 961),
        ("norm_linear", 48, 97),
        ("linear_residual", 1536, 576),
        ("linear_residual", 2048, 130),
        ("norm_gate_up", 576, 1000),
        ("norm_gate_up", 48, 96),
        ("norm_gate_up_gelu", 48, 97),
        ("linear_norm_residual", 48, 97),
    ],
)
def test_float32_rows_have_the_same_bits_in_any_company(operation, hidden, width, threads):
    total = 800 if hidden == 48 else 290
    given = arguments(operation, total, hidden, width, "float32", bias=True)
    run = resolve(operation, "cpu", "float32")
    whole = run(*given)
    residual = {"linear_residual": 2, "linear_norm_residual": 4}.get(operation)
    for rows in (1, 2, 11, 33, 64, 65, 129, 255, 777):
        for at in {3, total - rows} if rows < total else ():
            part = list(given)
            part[0] = given[0][at : at + rows]
            if residual:
                part[residual] = given[residual][at : at + rows]
            assert torch.equal(run(*part), whole[at : at + rows]), (rows, at, threads)


@pytest.mark.parametrize("columns", [1, 2, 3, 7, 16, 33, 97])
def test_any_number_of_outputs_is_covered_once(columns, threads):
    x, weight, bias = random(20, 24), random(columns, 24), random(columns, seed=5)
    expected = torch.nn.functional.linear(x, weight, bias)
    torch.testing.assert_close(invariant_linear(x, weight, bias), expected, atol=1e-5, rtol=1e-5)


def test_weight_that_is_a_view_is_read_right(threads):
    whole = random(40, 24)
    weight = whole[10:33]
    x = random(3, 24, seed=9)
    torch.testing.assert_close(
        invariant_linear(x, weight, None), x @ weight.T, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(("operation", "norm_at"), NORMED.items())
def test_a_float32_norm_weight_is_applied_before_rounding(operation, norm_at):
    given = arguments(operation, 7, 64, 96, "bfloat16")
    given[norm_at] = given[norm_at].float() + 1.001
    expected = resolve(operation, "anything", "bfloat16")(*given)
    got = resolve(operation, "cpu", "bfloat16")(*given)
    assert got.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(got, expected, atol=3e-2, rtol=3e-2)
    x, norm = given[0], torch.full((64,), 1.001)
    wide = (x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + EPS)) * norm
    assert torch.equal(rms_norm(x, norm, EPS), wide.bfloat16())
    assert torch.equal(fused_rms_norm(x, norm, EPS), wide.bfloat16())


def test_gelu_is_the_tanh_approximation():
    x, norm = random(5, 64), torch.ones(64)
    weight = torch.cat((torch.eye(64), torch.zeros(64, 64)))
    bias = torch.cat((torch.zeros(64), torch.ones(64)))
    gate = rms_norm(x, norm, EPS)
    got = resolve("norm_gate_up_gelu", "cpu", "float32")(x * 30, norm, EPS, weight, bias)
    expected = torch.nn.functional.gelu(gate, approximate="tanh")
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cap", [0.5, 30.0])
def test_soft_cap_limits_and_keeps_small_values(cap):
    soft_cap = resolve("soft_cap", "cpu", "float32")
    x = torch.tensor([-1e9, -1e-4, 0.0, 1e-4, 1e9])
    got = soft_cap(x, cap)
    torch.testing.assert_close(got, torch.tensor([-cap, -1e-4, 0.0, 1e-4, cap]))
    assert x[0] == -1e9


def test_rms_norm_is_computed_in_float32():
    x = torch.full((1, 64), 300.0, dtype=torch.float16)
    got = rms_norm(x, torch.ones(64, dtype=torch.float16), EPS)
    torch.testing.assert_close(got, torch.ones_like(x), atol=1e-3, rtol=0)


def test_embedding_takes_table_rows():
    table = random(10, 4)
    got = resolve("embed", "cpu", "float32")(torch.tensor([3, 0, 3]), table)
    assert torch.equal(got, table[[3, 0, 3]])
