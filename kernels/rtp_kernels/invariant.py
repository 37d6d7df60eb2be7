"""Linear layers on the CPU whose rows do not depend on how many rows there are.

float32 products of the CPU's BLAS give a row the same bits for every row count from 12 on
(measured for 12 to 1,024 rows), and other bits below. Padding small inputs to 16 rows makes
float32 results independent of batching and chunking. bfloat16 takes the fast path.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

MIN_ROWS = 16
Linear = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


def padded_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x [rows, in], weight [out, in] -> [rows, out], bit-equal for any number of rows."""
    rows = x.shape[0]
    if rows >= MIN_ROWS:
        return functional.linear(x, weight, bias)
    padded = x.new_zeros(MIN_ROWS, x.shape[1])
    padded[:rows] = x
    return functional.linear(padded, weight, bias)[:rows]


def bind_linear(dtype: str) -> Linear:
    """The invariant form for float32, the plain one otherwise."""
    return padded_linear if dtype == "float32" else functional.linear
