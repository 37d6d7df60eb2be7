"""Linear layers on the CPU whose rows do not depend on how many rows there are.

float32 only; bfloat16 takes the fast path. Two habits of the CPU's BLAS (MKL, as torch ships
it) give a row other last bits in other company. Below about a dozen rows other kernels run:
small inputs are padded to 16 rows. And several threads sum inputs of some 1,500 columns and
more in parts that depend on the row count: the weight is therefore multiplied in as many
groups of rows as there are threads, as one batched product, in which each member stays on one
thread. Measured for 1 to 8 threads, 1 to 700 rows, 48 to 8,192 inputs and 16 to 3,072
outputs: no bit differs; the groups cost about a tenth more time from 1,000 rows on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from rtp_kernels.compiled import CompiledLinear
from rtp_kernels.few_rows import FewRowsLinear

MIN_ROWS = 16
Weight = torch.Tensor | FewRowsLinear | CompiledLinear
Linear = Callable[[torch.Tensor, Any, torch.Tensor | None], torch.Tensor]


def invariant_linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """x [rows, in], weight [out, in] -> [rows, out], bit-equal for any number of rows."""
    rows = x.shape[0]
    if rows < MIN_ROWS:
        x = functional.pad(x, (0, 0, 0, MIN_ROWS - rows))
    groups = min(torch.get_num_threads(), weight.shape[0] // 2)
    if groups <= 1:
        return functional.linear(x, weight, bias)[:rows]
    out = _grouped(x, weight, groups)[:rows]
    return out if bias is None else out.add_(bias)


def _grouped(x: torch.Tensor, weight: torch.Tensor, groups: int) -> torch.Tensor:
    """Equal groups of weight rows, `step` apart; they overlap if rows are left over.

    A group has two rows or more: for one, a product would become another kind of call.
    """
    columns, inputs = weight.shape
    step = columns // groups
    width = columns - (groups - 1) * step
    stride = weight.stride(0)
    parts = weight.as_strided((groups, width, inputs), (step * stride, stride, 1))
    done = torch.bmm(x.expand(groups, *x.shape), parts.transpose(1, 2))
    out = x.new_empty(x.shape[0], columns)
    last = columns - width
    out[:, :last].unflatten(1, (groups - 1, step)).copy_(done[:-1, :, :step].transpose(0, 1))
    out[:, last:] = done[-1]
    return out


def bind_linear(dtype: str) -> Linear:
    """The invariant form for float32, the fast one otherwise."""
    return invariant_linear if dtype == "float32" else fast_linear


def fast_linear(x: torch.Tensor, weight: Weight, bias: torch.Tensor | None) -> torch.Tensor:
    """x [rows, in] -> [rows, out], by codes where the weight has some and rows are few."""
    if isinstance(weight, torch.Tensor):
        return functional.linear(x, weight, bias)
    return weight(x, bias)


def dense_form(weight: Weight, rows: int) -> torch.Tensor | None:
    """The matrix by which `fast_linear` would multiply this many rows; None for codes."""
    if isinstance(weight, torch.Tensor):
        return weight
    return weight.dense if rows > weight.max_rows else None
