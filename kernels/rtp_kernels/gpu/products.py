"""Several rows times a matrix, by whichever form was chosen."""

from __future__ import annotations

import torch
from torch.nn import functional

from rtp_kernels.gpu.forms import Choose, Form, Library, Swapped
from rtp_kernels.gpu.gated import gated_product
from rtp_kernels.gpu.swapped_gemm import swapped_gemm

_ROW_BYTES = 16
"""Rows of a tensor descriptor start at multiples of this."""


def form_for(choose: Choose, operation: str, rows: int, weight: torch.Tensor) -> Form:
    """What `choose` says, unless the weight does not lie in memory as kernels read it."""
    if not weight.is_contiguous():
        return Library()
    form = choose(operation, rows, *weight.shape)
    if isinstance(form, Swapped) and form.tiles and not _aligned(weight):
        return Library()
    return form


def _aligned(weight: torch.Tensor) -> bool:
    row = weight.shape[1] * weight.element_size()
    return row % _ROW_BYTES == 0 and weight.data_ptr() % _ROW_BYTES == 0


def product(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, form: Form
) -> torch.Tensor:
    """x [rows, inputs] -> [rows, outputs] of its dtype."""
    if isinstance(form, Swapped):
        return swapped_gemm(x, weight, bias, form)[0]
    return functional.linear(x, weight, bias)


def partial_sums(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, form: Form
) -> torch.Tensor:
    """As `product`, in parts that are yet to be added: [splits, rows, outputs]."""
    if isinstance(form, Swapped):
        return swapped_gemm(x, weight, bias, form)
    return functional.linear(x, weight, bias)[None]


def gated(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    form: Form,
    activation: str,
) -> torch.Tensor:
    """x [rows, inputs], weight [2 * width, inputs], gate first -> [rows, width]."""
    if isinstance(form, Swapped):
        return swapped_gemm(x, weight, bias, form, activation=activation)[0]
    return gated_product(functional.linear(x, weight, bias), activation)


def wide_product(x: torch.Tensor, weight: torch.Tensor, form: Form) -> torch.Tensor:
    """x [rows, inputs] -> float32 [rows, outputs], not rounded to x's dtype on the way."""
    if isinstance(form, Swapped):
        return swapped_gemm(x, weight, None, form, out_dtype=torch.float32)[0]
    if x.is_cuda:
        return torch.mm(x, weight.t(), out_dtype=torch.float32)
    return functional.linear(x, weight).float()
