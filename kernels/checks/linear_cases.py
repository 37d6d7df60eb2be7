"""Shapes, inputs and alternatives for the check of the linear operations."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from rtp_kernels.gpu.forms import Choose, Form, Gemv, Library, Swapped, default
from rtp_kernels.gpu.residual import ResidualStream

EPS = 1e-6
LAYERS = 36
WORKERS = 14


@dataclass(frozen=True)
class Linear:
    """One weight of a model and the operation that multiplies by it."""

    model: str
    name: str
    operation: str
    outputs: int
    inputs: int

    @property
    def width(self) -> int:
        """Columns of the result."""
        return self.outputs // 2 if self.operation == "norm_gate_up" else self.outputs

    def bytes(self, rows: int) -> int:
        """Least traffic of a call: weights, inputs and outputs once."""
        out = 4 if self.operation == "head" else 2
        residual = 2 * self.width if self.operation == "linear_residual" else 0
        return 2 * self.outputs * self.inputs + rows * (
            2 * self.inputs + out * self.width + residual
        )


QWEN3_8B = (
    Linear("Qwen3-8B", "qkv", "norm_linear", 6144, 4096),
    Linear("Qwen3-8B", "o", "linear_residual", 4096, 4096),
    Linear("Qwen3-8B", "gate_up", "norm_gate_up", 24576, 4096),
    Linear("Qwen3-8B", "down", "linear_residual", 4096, 12288),
    Linear("Qwen3-8B", "head", "head", 151936, 4096),
)
SMOLLM2_135M = (
    Linear("SmolLM2-135M", "qkv", "norm_linear", 960, 576),
    Linear("SmolLM2-135M", "o", "linear_residual", 576, 576),
    Linear("SmolLM2-135M", "gate_up", "norm_gate_up", 3072, 576),
    Linear("SmolLM2-135M", "down", "linear_residual", 576, 1536),
    Linear("SmolLM2-135M", "head", "head", 49152, 576),
)


def library(*_: Any) -> Form:
    """cuBLAS for everything."""
    return Library()


def bound(operation: str, choose: Choose | None = None) -> Any:
    """The Triton form of an operation."""
    return import_module(f"rtp_kernels.{operation}.triton").bind("bfloat16", choose)


def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
    """Fresh random bfloat16 on the device."""
    return torch.empty(*shape, dtype=torch.bfloat16, device="cuda").normal_(0, scale)


def weight_of(linear: Linear) -> torch.Tensor:
    """Outputs are of order one."""
    return normal(linear.outputs, linear.inputs, scale=linear.inputs**-0.5)


def call(linear: Linear, run: Any, weight: Any, rows: Sequence[Any], bias: Any = None) -> Any:
    """One call; `rows` are x, gain and residual."""
    x, gain, residual = rows
    extra = [] if bias is None else [bias]
    if linear.operation == "linear_residual":
        return run(x, weight, residual, *extra)
    return run(x, gain, EPS, weight, *extra)


def inputs_of(linear: Linear, rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x, the norm's gain, and a residual that does not hide errors of the product."""
    gain = 1 + normal(linear.inputs, scale=0.1)
    return normal(rows, linear.inputs), gain, normal(rows, linear.width, scale=0.25)


def compile_in_parallel(cases: Sequence[tuple[Linear, int, Form | None]]) -> list[str]:
    """Runs each case once in other processes, which fills Triton's cache; what failed."""
    with multiprocessing.get_context("spawn").Pool(min(WORKERS, len(cases))) as pool:
        return [error for error in pool.map(_try, cases, chunksize=1) if error]


def _try(case: tuple[Linear, int, Form | None]) -> str | None:
    linear, rows, form = case
    try:
        choose = None if form is None else (lambda *_: form)
        weight = torch.empty(linear.outputs, linear.inputs, dtype=torch.bfloat16, device="cuda")
        given = inputs_of(linear, rows)
        done = call(linear, bound(linear.operation, choose), weight, given)
        if isinstance(done, ResidualStream):
            again = ResidualStream(done.residual, done.partials)
            done.settle()
            again.normed(1 + normal(linear.width), EPS)
        torch.cuda.synchronize()
    except Exception as error:  # noqa: BLE001 - reported; the others go on
        return f"{linear.name} rows={rows} {form}: {error!r}"[:300]
    return None


@functools.cache
def alternatives(linear: Linear, rows: int) -> tuple[Form, ...]:
    """Forms that a tuning run tries."""
    if rows == 1:
        return _gemvs(linear)
    shapes = [(64, 128, 4), (64, 128, 6), (64, 256, 3), (64, 256, 4), (64, 64, 6)]
    if rows > 32:
        shapes = [(64, 128, 4), (64, 128, 5), (64, 64, 6), (128, 64, 4), (128, 64, 5)]
    if linear.operation == "norm_gate_up":
        shapes = [(64, 128, 4), (64, 64, 6), (128, 64, 4)]
    splits = (1, 2, 4) if linear.operation == "linear_residual" else (1,)
    forms = [
        Swapped(n, k, stages, parts, warps=8 if n == 128 and rows > 32 else 4, tiles=tiles)
        for n, k, stages in shapes
        for parts in splits
        for tiles in ((True, False) if (n, stages) == (64, 4) else (True,))
        if _fits(linear, rows, n, k, stages)
    ]
    return (*forms, Library())


def _gemvs(linear: Linear) -> tuple[Form, ...]:
    shapes = [(8, 1024, 1), (4, 1024, 2), (4, 1024, 4), (4, 2048, 1), (2, 2048, 2), (8, 512, 2)]
    return tuple(Gemv(*shape) for shape in shapes if shape[1] <= 2 * linear.inputs)


def _fits(linear: Linear, rows: int, n: int, k: int, stages: int) -> bool:
    tiles = 2 * n if linear.operation == "norm_gate_up" else n
    return 2 * k * stages * (tiles + max(16, 1 << (rows - 1).bit_length())) <= 220 * 1024


def chooser(forms: dict[tuple[str, int, int], Form]) -> Choose:
    """The shipped choice, but for the given (operation, outputs, inputs)."""
    shipped = default()
    return lambda operation, rows, outputs, inputs: (
        forms.get((operation, outputs, inputs)) or shipped(operation, rows, outputs, inputs)
    )
