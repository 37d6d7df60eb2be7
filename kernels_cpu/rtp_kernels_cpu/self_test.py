"""Does the compiled library work here? Asked once, answered by small cases of each operation."""

from __future__ import annotations

from functools import cache

import torch

from rtp_kernels.linear_weight import quantize
from rtp_kernels.paged_attention.plan import Geometry, Row
from rtp_kernels_cpu import (
    attention,
    attention_reference,
    linear,
    linear_reference,
    rows,
    rows_reference,
)
from rtp_kernels_cpu.attention_plan import plan_rows
from rtp_kernels_cpu.library import library
from rtp_kernels_cpu.weights import borrow, pack

_TOLERANCE = 2e-2
"""Of a result's norm: well above rounding, far below any wrong layout."""


@cache
def failure() -> str | None:
    """None, or why the library must not be used."""
    try:
        library()
    except OSError as error:
        return str(error)
    errors = {f"{bits}-bit product": _product_error(bits) for bits in (4, 8, 16)}
    errors["attention"] = _attention_error([Row(20, 1, (2, 0)), Row(3, 2, (1,))])
    errors["prefill attention"] = _attention_error([Row(9, 20, (2, 0))])
    errors["norm"], errors["gate"] = _row_errors()
    for name, error in errors.items():
        if not error <= _TOLERANCE:
            return f"the {name} is wrong by {error:.1%}: reinstall rtp-kernels-cpu"
    return None


def _product_error(bits: int) -> float:
    dense = _random(48, 64)
    weight = borrow(dense.bfloat16()) if bits == 16 else pack(quantize(dense, bits))
    x, norm = _random(3, 64).bfloat16(), _random(64).bfloat16()
    wanted = linear_reference.head(x, norm, 1e-5, weight)
    return _error(linear.head(x, norm, 1e-5, weight), wanted)


def _attention_error(given: list[Row]) -> float:
    geometry, tokens = Geometry(4, 2, 32, 16, 0.25), sum(row.num_new for row in given)
    cos, sin = _random(tokens, 1, 32), _random(tokens, 1, 32)
    plan = plan_rows(given, 16, cos, sin)
    qkv, plane = _random(tokens, 8 * 32).bfloat16(), _random(2, 48, 32).bfloat16()
    wanted = attention_reference.PagedAttention()(
        qkv, (plane.clone(), plane.clone()), plan, geometry
    )
    return _error(attention.paged_attention(qkv, (plane, plane.clone()), plan, geometry), wanted)


def _row_errors() -> tuple[float, float]:
    x, norm = _random(5, 70).bfloat16(), _random(70).bfloat16()
    normed, wanted = (one.rms_norm(x, norm, 1e-5, x) for one in (rows, rows_reference))
    return _error(normed, wanted), _error(rows.gate(x), rows_reference.gate(x))


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape) + sum(shape)))


def _error(actual: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((actual.float() - wanted.float()).norm() / wanted.float().norm())
