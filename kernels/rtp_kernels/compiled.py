"""The optional compiled operations (distribution `rtp-kernels-cpu`), where they work.

Forms named `compiled.py` beside the others use them for weights that kept their codes, for the
row counts at which they were measured to be faster; everything else takes the `cpu.py` form.
"""

from __future__ import annotations

from collections.abc import Callable
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


def serves(weight: object, x: torch.Tensor, norm: torch.Tensor | None = None) -> bool:
    """Whether the compiled form takes this call: packed, few rows, bfloat16 throughout."""
    if not isinstance(weight, CompiledLinear) or x.shape[0] > weight.max_rows:
        return False
    return norm is None or norm.dtype is torch.bfloat16


def bind_compiled_gated(
    dtype: str, plain: Callable[..., torch.Tensor], activation: str
) -> Callable[..., torch.Tensor]:
    """Norm, gate and up in one compiled call where it serves, else `plain`."""
    if not usable_for(dtype):
        return plain
    compiled, variant = operations().norm_gate_up, operations().Variant(0.0, activation)

    def norm_gate_up(
        x: torch.Tensor,
        norm: torch.Tensor,
        eps: float,
        weight: Any,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if serves(weight, x, norm):
            return compiled(x, norm, eps, weight.packed, bias, variant)
        return plain(x, norm, eps, weight, bias)

    return norm_gate_up
