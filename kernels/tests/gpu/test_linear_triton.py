"""The Triton forms of the linear operations against the definitions, in the interpreter.

Products run in float16: the interpreter's product of bfloat16 tiles is not one. What an
operation allocates is filled with NaN, so that an element nobody wrote shows.
"""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rtp_kernels.gpu.forms import Gemv, Library, Swapped
from rtp_kernels.gpu.residual import ResidualStream
from rtp_kernels.registry import resolve

EPS = 1e-5
OPERATIONS = (
    "norm_linear",
    "linear_residual",
    "norm_gate_up",
    "norm_gate_up_gelu",
    "linear_norm_residual",
    "head",
)
SPLITTABLE = ("linear_residual", "linear_norm_residual")
SWAPPED = Swapped(16, 32, 2)


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Every new tensor is full of NaN."""

    def poison(make):
        def made(*args, **kwargs):
            out = make(*args, **kwargs)
            return out.fill_(torch.nan) if out.is_floating_point() else out

        return made

    for name in ("empty", "empty_like"):
        monkeypatch.setattr(torch, name, poison(getattr(torch, name)))


def bound(operation, form=None):
    """The Triton form, with one form of product for everything."""
    module = import_module(f"rtp_kernels.{operation}.triton")
    return module.bind("float16", None if form is None else lambda *_: form)


def settle(x):
    return import_module("rtp_kernels.settle.triton").bind("float16")(x)


def random(*shape, seed=0, dtype=torch.float16):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator).to(dtype)


def arguments(operation, rows, hidden, width, *, bias=False, dtype=torch.float16, norm=None):
    """Positional arguments, in the order of the definition."""
    outputs = 2 * width if operation.startswith("norm_gate_up") else width
    weight = random(outputs, hidden, seed=2, dtype=dtype) * hidden**-0.5
    extra = [random(outputs, seed=3, dtype=dtype)] if bias else []
    x, gain = random(rows, hidden, dtype=dtype), 1 + random(hidden, seed=1, dtype=norm or dtype) / 4
    residual = random(rows, width, seed=4, dtype=dtype)
    if operation == "linear_residual":
        return [x, weight, residual, *extra]
    if operation == "linear_norm_residual":
        gain = 1 + random(width, seed=1, dtype=norm or dtype) / 4
        return [x, weight, gain, EPS, residual, *extra]
    return [x, gain, EPS, weight] + ([] if operation == "head" else extra)


def wide(given):
    return [one.float() if isinstance(one, torch.Tensor) else one for one in given]


def check(operation, given, form, tolerance=4e-3):
    kept = [one.clone() if isinstance(one, torch.Tensor) else one for one in given]
    got = settle(bound(operation, form)(*given))
    expected = resolve(operation, "anything", "float32")(*wide(given))
    assert got.shape == expected.shape
    assert got.dtype == (torch.float32 if operation == "head" else given[0].dtype)
    assert (got.float() - expected).norm() <= tolerance * expected.norm()
    for one, before in zip(given, kept, strict=True):
        if isinstance(one, torch.Tensor):
            assert torch.equal(one, before)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    "form",
    [
        Library(),
        SWAPPED,
        Swapped(16, 16, 3, tiles=False),
        Swapped(32, 64, 2, splits=1, warps=8),
    ],
)
def test_a_few_rows(operation, form, bias):
    for rows, hidden, width in ((1, 64, 48), (3, 72, 40), (17, 96, 33)):
        check(operation, arguments(operation, rows, hidden, width, bias=bias), form)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    "form", [Gemv(8, 32), Gemv(4, 16, 2), Gemv(2, 16, 4), Gemv(8, 64, 4), Gemv(8, 128)]
)
def test_one_row(operation, form, bias):
    for hidden, width in ((64, 16), (72, 17), (9, 5)):
        check(operation, arguments(operation, 1, hidden, width, bias=bias), form)


@pytest.mark.parametrize("operation", SPLITTABLE)
@pytest.mark.parametrize("splits", [2, 3, 4])
@pytest.mark.parametrize("tiles", [True, False])
def test_parts_add_up(operation, splits, tiles):
    form = Swapped(16, 16, 2, splits, tiles=tiles)
    for rows, hidden in ((2, 64), (5, 80), (16, 16)):  # 16: parts with no column of their own
        check(operation, arguments(operation, rows, hidden, 24, bias=True), form)


@settings(max_examples=20, deadline=None)
@given(
    operation=st.sampled_from(OPERATIONS),
    rows=st.integers(1, 40),
    hidden=st.integers(1, 12).map(lambda n: 8 * n),
    width=st.integers(1, 70),
    block_n=st.sampled_from([16, 32]),
    block_k=st.sampled_from([16, 32, 64]),
    splits=st.integers(1, 4),
    tiles=st.booleans(),
)
def test_any_shape_in_any_blocks(operation, rows, hidden, width, block_n, block_k, splits, tiles):
    splits = splits if operation in SPLITTABLE else 1
    form = Swapped(block_n, block_k, 2, splits, tiles=tiles)
    check(operation, arguments(operation, rows, hidden, width), form)


@settings(max_examples=15, deadline=None)
@given(
    operation=st.sampled_from(OPERATIONS),
    hidden=st.integers(1, 200),
    width=st.integers(1, 20),
    block_n=st.sampled_from([1, 4, 8]),
    block_k=st.sampled_from([16, 64, 256]),
    unroll=st.sampled_from([1, 2, 4]),
)
def test_one_row_of_any_length(operation, hidden, width, block_n, block_k, unroll):
    check(operation, arguments(operation, 1, hidden, width), Gemv(block_n, block_k, unroll))


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("rows", [1, 2, 70])
def test_what_is_chosen_by_itself_is_right(operation, rows):
    check(operation, arguments(operation, rows, 96, 24, bias=operation != "head"), None)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_rows(operation):
    given = arguments(operation, 0, 64, 48)
    got = settle(bound(operation)(*given))
    assert got.shape == resolve(operation, "anything", "float32")(*wide(given)).shape


@pytest.mark.parametrize("form", [Gemv(4, 32), SWAPPED, Library()])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_float32_norm_weight(operation, form):
    rows = 1 if isinstance(form, Gemv) else 6
    given = arguments(operation, rows, 64, 48, norm=torch.float32)
    check(operation, given, form)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_bfloat16_with_one_row(operation):
    given = arguments(operation, 1, 64, 48, dtype=torch.bfloat16)
    check(operation, given, Gemv(4, 32), tolerance=2e-2)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("form", [Gemv(4, 32), Swapped(16, 32, 2, tiles=False), SWAPPED])
def test_weights_and_rows_that_are_views(operation, form):
    rows = 1 if isinstance(form, Gemv) else 5
    given = arguments(operation, rows, 64, 48)
    for at, one in enumerate(given):
        if isinstance(one, torch.Tensor) and one.dim() == 2:
            spread = torch.full((one.shape[0], one.shape[1] + 3), torch.nan, dtype=one.dtype)
            spread[:, : one.shape[1]] = one
            given[at] = spread[:, : one.shape[1]]
    got = settle(bound(operation, form)(*given))
    expected = resolve(operation, "anything", "float32")(*wide(given))
    assert (got.float() - expected).norm() <= 4e-3 * expected.norm()


def test_a_float32_sum_of_a_head_is_not_rounded_between():
    x, norm = torch.ones(2, 64, dtype=torch.float16), torch.ones(64, dtype=torch.float16)
    weight = torch.full((16, 64), 1.0, dtype=torch.float16)
    weight[:, 0] += 2**-10
    for form, rows in ((Gemv(4, 32), 1), (SWAPPED, 2)):
        got = bound("head", form)(x[:rows], norm, 0.0, weight)
        assert torch.equal(got, torch.full((rows, 16), 64 + 2**-10))


class TestStream:
    """A decoder's layers, with sums left pending between operations."""

    HIDDEN, WIDTH = 48, 80

    def layers(self, run, x, splits_norm=False):
        out = []
        for seed in (1, 2):
            gain, post = 1 + random(self.HIDDEN, seed=seed) / 4, 1 + random(48, seed=9) / 4
            square = random(self.HIDDEN, self.HIDDEN, seed=seed) * self.HIDDEN**-0.5
            both = random(2 * self.WIDTH, self.HIDDEN, seed=seed) * self.HIDDEN**-0.5
            down = random(self.HIDDEN, self.WIDTH, seed=seed) * self.WIDTH**-0.5
            if run.__name__ == "exact":
                gain, post, square, both, down = wide([gain, post, square, both, down])
            heads = run("norm_linear")(x, gain, EPS, square)
            if splits_norm:
                x = run("linear_norm_residual")(heads, square, post, EPS, x)
            else:
                x = run("linear_residual")(heads, square, x)
            x = run("linear_residual")(run("norm_gate_up")(x, gain, EPS, both), down, x)
            out.append(x)
        return out

    @staticmethod
    def exact(operation):
        return resolve(operation, "anything", "float32")

    @pytest.mark.parametrize("splits_norm", [False, True])
    @pytest.mark.parametrize("rows", [1, 2, 5])
    def test_layers_give_what_the_definitions_give(self, rows, splits_norm):
        x = random(rows, self.HIDDEN, seed=7)

        def fast(operation):
            one_row = Gemv(4, 32) if rows == 1 else None
            splits = 3 if operation in SPLITTABLE else 1
            return bound(operation, one_row or Swapped(16, 16, 2, splits))

        expected = self.layers(self.exact, x.float(), splits_norm)
        streams = self.layers(fast, x, splits_norm)
        for got, wanted in zip(streams, expected, strict=True):
            assert (settle(got).float() - wanted).norm() <= 5e-3 * wanted.norm()

    def test_a_settled_tensor_stays_as_it_was(self):
        x, update = random(3, 48), random(2, 3, 48, dtype=torch.float32)
        stream = ResidualStream(x, update)
        first = settle(stream)
        kept = first.clone()
        weight = random(48, 48, seed=3)
        after = bound("linear_residual", SWAPPED)(first, weight, stream)
        bound("norm_linear", SWAPPED)(after, torch.ones(48, dtype=x.dtype), EPS, weight)
        assert torch.equal(first, kept)
        assert torch.equal(settle(stream), kept)

    def test_reading_a_stream_does_not_change_its_sum(self):
        x, update = random(3, 48), random(1, 3, 48)
        expected = (x.float() + update[0].float()).half()
        stream, norm = ResidualStream(x, update), torch.ones(48, dtype=x.dtype)
        first = stream.normed(norm, EPS)
        again = stream.normed(norm, EPS)  # of the rounded sum this time
        torch.testing.assert_close(again, first, atol=4e-3, rtol=0)
        assert torch.equal(settle(stream), expected)
        assert stream.shape == x.shape

    def test_two_updates_without_a_norm_between(self):
        x, weight, y = random(4, 48), random(48, 16, seed=1) / 4, random(4, 16, seed=2)
        run = bound("linear_residual", Swapped(16, 16, 2, 1))
        got = settle(run(y, weight, run(y, weight, x)))
        expected = x.float() + 2 * (y.float() @ weight.float().T)
        assert (got.float() - expected).norm() <= 3e-3 * expected.norm()


@pytest.mark.parametrize("cap", [0.5, 30.0])
@pytest.mark.parametrize("shape", [(3, 2000), (1, 1), (0, 7)])
def test_soft_cap_is_exact_for_small_and_large(shape, cap):
    soft_cap = import_module("rtp_kernels.soft_cap.triton").bind("bfloat16")
    scale = 10 ** torch.linspace(-8, 4, shape[1])
    x = random(*shape, dtype=torch.float32) * scale
    kept, got = x.clone(), soft_cap(x, cap)
    expected = cap * torch.tanh(x.double() / cap)
    torch.testing.assert_close(got.double(), expected, atol=0, rtol=2e-6)
    assert torch.equal(x, kept)


@pytest.mark.parametrize("ids", [[3, 0, 3], [9], []])
@pytest.mark.parametrize("kind", [torch.int64, torch.int32])
@pytest.mark.parametrize("hidden", [64, 36])
def test_embedding_takes_table_rows(ids, kind, hidden):
    table = random(10, hidden, dtype=torch.bfloat16)
    got = import_module("rtp_kernels.embed.triton").bind("bfloat16")(
        torch.tensor(ids, dtype=kind), table
    )
    assert torch.equal(got, table[torch.tensor(ids, dtype=torch.int64)])
