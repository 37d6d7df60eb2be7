"""Which rows and weights the compiled forms take, and that what they take comes out right."""

from __future__ import annotations

import pytest
import torch

from rtp_kernels.compiled import CompiledLinear, unavailable
from rtp_kernels.linear_weight import quantize
from rtp_kernels.paged_attention.compiled import compiled_attention
from rtp_kernels.paged_attention.plan import AttentionPlan, Geometry, Row, row_keys
from rtp_kernels.paged_attention.rotary import rotary_tables
from rtp_kernels.registry import resolve

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=f"{unavailable()}")

EPS, HIDDEN, WIDTH = 1e-5, 64, 48
NORMED = ("norm_linear", "norm_gate_up", "norm_gate_up_gelu", "head")


@pytest.fixture
def library():
    from rtp_kernels_cpu import library

    yield library
    if kernels := library.prefill_kernels():
        library.use_prefill_kernel(kernels[0])


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def compiled_weight(outputs, parts):
    from rtp_kernels_cpu.weights import pack

    codes = quantize(random(outputs, HIDDEN) * HIDDEN**-0.5, 8)
    return CompiledLinear(codes.dense().bfloat16(), pack(codes, parts), max_rows=4)


@pytest.mark.parametrize("operation", NORMED)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("rows", [1, 4, 5, 40])
def test_rows_on_both_sides_of_the_bound_equal_the_definition(operation, dtype, rows):
    """Norms of both dtypes, as Llama and Gemma have them."""
    gated = operation.startswith("norm_gate_up")
    weight = compiled_weight(2 * WIDTH if gated else WIDTH, 2 if gated else 1)
    x, norm = random(rows, HIDDEN).bfloat16(), random(HIDDEN, seed=1).to(dtype)
    wanted = resolve(operation, "anything", "bfloat16")(x, norm, EPS, weight.dense)
    got = resolve(operation, "cpu", "bfloat16")(x, norm, EPS, weight)
    assert got.dtype == wanted.dtype
    torch.testing.assert_close(got, wanted, atol=5e-2, rtol=5e-2)


@pytest.mark.parametrize("rows", [3, 40])
@pytest.mark.parametrize("bias", [False, True])
def test_residuals_are_added_on_both_sides_of_the_bound(rows, bias):
    weight, x = compiled_weight(WIDTH, 1), random(rows, HIDDEN).bfloat16()
    residual = random(rows, WIDTH, seed=3).bfloat16()
    extra = random(WIDTH, seed=4).bfloat16() if bias else None
    norm = random(WIDTH, seed=1)
    for operation, more in (
        ("linear_residual", (residual, extra)),
        ("linear_norm_residual", (norm, EPS, residual, extra)),
    ):
        kept = residual.clone()
        wanted = resolve(operation, "anything", "bfloat16")(x, weight.dense, *more)
        got = resolve(operation, "cpu", "bfloat16")(x, weight, *more)
        torch.testing.assert_close(got, wanted, atol=5e-2, rtol=5e-2)
        assert torch.equal(residual, kept)


def test_long_rows_are_taken_where_there_is_a_kernel_for_them(library):
    geometries = [Geometry(4, 2, 32, 16, 32**-0.5)]
    takes = compiled_attention("bfloat16", geometries).takes
    assert takes(17, tree=False) == bool(library.prefill_kernels())
    assert takes(16, tree=True)
    assert not takes(17, tree=True)
    library.use_prefill_kernel("")
    assert compiled_attention("bfloat16", geometries).takes(16, tree=False)


def test_layers_of_other_shapes_and_dtypes_are_left_to_torch():
    assert compiled_attention("bfloat16", [Geometry(4, 2, 20, 16, 1.0)]) is None
    assert compiled_attention("float32", [Geometry(4, 2, 32, 16, 1.0)]) is None


@pytest.mark.parametrize("chunks", [(60,), (17, 43), (40, 20), (50, 1, 9)])
def test_chunks_of_any_size_equal_the_definition(library, chunks):
    """Long and short rows take different kernels; both store keys and see the same ones."""
    geometry, total, blocks = Geometry(6, 2, 32, 16, 32**-0.5), 60, [5, 2, 7, 0]
    qkv = random(total, 10 * 32).bfloat16()
    tables = rotary_tables(100.0 ** -torch.arange(0, 1, 1 / 16), torch.arange(total), torch.float32)
    slots = torch.tensor([blocks[at // 16] * 16 + at % 16 for at in range(total)])
    keys = row_keys(Row(0, total, blocks), 0, 16, "cpu")
    plan = AttentionPlan(total, (keys,), slots, -1, None, *tables, None)
    planes = [torch.zeros(2, 128, 32) for _ in range(2)]
    wanted = resolve("paged_attention", "anything", "float32")(qkv.float(), planes, plan, geometry)
    attention = compiled_attention("bfloat16", [geometry])
    planes, begin, parts = [plane.bfloat16() for plane in planes], 0, []
    for size in chunks:
        at = slice(begin, begin + size)
        rows = [Row(begin, size, blocks)]
        here = attention.plan(rows, 16, *(table[at] for table in tables))
        parts.append(attention.run(qkv[at], tuple(planes), here, geometry))
        begin += size
    torch.testing.assert_close(torch.cat(parts).float(), wanted, atol=2e-2, rtol=2e-2)
