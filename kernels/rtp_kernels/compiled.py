"""The optional compiled operations (distribution `rtp-kernels-cpu`), where they work.

Forms named `compiled.py` beside the others use them: for few rows, products by the codes that
weights kept, up to the row counts at which they were measured to be faster; for all others,
the `cpu.py` form with compiled norms and gates around torch's dense products.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch.nn import functional

PACKAGE = "rtp_kernels_cpu"


@cache
def unavailable() -> str | None:
    """Why the compiled operations cannot be used, or None."""
    if find_spec(PACKAGE) is None:
        return "rtp-kernels-cpu is not installed"
    return import_module(PACKAGE).available()


def usable_for(dtype: str) -> bool:
    """Whether to bind the compiled form of an operation."""
    return dtype == "bfloat16" and unavailable() is None


def operations() -> Any:
    """The module of linear operations; only after `unavailable` said None."""
    return import_module(f"{PACKAGE}.linear")


def row_operations() -> Any:
    """The module of norms and gates, on as many threads as torch; as `operations`."""
    share_threads()
    return import_module(f"{PACKAGE}.rows")


def share_threads() -> None:
    """Give the library as many threads as torch has."""
    import_module(f"{PACKAGE}.library").library().rtp_set_threads(torch.get_num_threads())


class CompiledLinear:
    """A linear layer whose packed codes serve up to `max_rows` rows, dense above."""

    __slots__ = ("dense", "max_rows", "packed")

    def __init__(self, dense: torch.Tensor, packed: Any, max_rows: int) -> None:
        self.dense = dense
        self.packed = packed
        self.max_rows = max_rows

    def __call__(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """The dense product: x bfloat16 [rows, in] -> [rows, out]."""
        return functional.linear(x, self.dense, bias)


def serves(weight: object, x: torch.Tensor) -> bool:
    """Whether the compiled product takes this call: packed, and few rows."""
    return isinstance(weight, CompiledLinear) and x.shape[0] <= weight.max_rows
