"""Norms and gates of many rows in bfloat16: what prefill does between dense products.

Sums and functions are float32, rounded once at the end. A row has the same bits on every
number of threads and every instruction set.
"""

from __future__ import annotations

from typing import Literal

import torch

from rtp_kernels_cpu.library import library

_ACTIVATIONS = {"silu": 0, "gelu_tanh": 1}


def rms_norm(
    x: torch.Tensor, norm: torch.Tensor, eps: float, residual: torch.Tensor | None = None
) -> torch.Tensor:
    """x / sqrt(mean(x^2) + eps) * norm, plus residual if given; [rows, columns] as x.

    norm [columns] is bfloat16 or float32. Raises ValueError for other dtypes and shapes.
    """
    x = _rows("x", x)
    rows, columns = x.shape
    wide = norm.dtype == torch.float32
    if norm.shape != (columns,) or not (wide or norm.dtype == torch.bfloat16):
        raise ValueError(
            f"norm must be bfloat16 or float32 [{columns}], not {norm.dtype} {list(norm.shape)}"
        )
    norm = norm.contiguous()
    if residual is not None:
        residual = _rows("residual", residual)
        if residual.shape != x.shape:
            raise ValueError(f"residual must be {list(x.shape)}, not {list(residual.shape)}")
    out = torch.empty_like(x)
    library().rtp_norm_rows(
        x.data_ptr(),
        norm.data_ptr(),
        wide,
        eps,
        None if residual is None else residual.data_ptr(),
        out.data_ptr(),
        rows,
        columns,
    )
    return out


def gate(both: torch.Tensor, activation: Literal["silu", "gelu_tanh"] = "silu") -> torch.Tensor:
    """activation(first half of the columns) * second half: [rows, 2 * width] -> [rows, width].

    Raises ValueError for another dtype or an odd number of columns.
    """
    both = _rows("both", both)
    rows, columns = both.shape
    if columns % 2:
        raise ValueError(f"gate and up cannot share {columns} columns")
    out = both.new_empty(rows, columns // 2)
    library().rtp_gate_rows(
        both.data_ptr(), out.data_ptr(), _ACTIVATIONS[activation], rows, columns // 2
    )
    return out


def _rows(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with its rows adjacent."""
    if tensor.dtype != torch.bfloat16 or tensor.dim() != 2 or not tensor.is_cpu:
        raise ValueError(
            f"{name} must be bfloat16 [rows, columns] on the CPU, not {tensor.dtype} "
            f"{list(tensor.shape)}"
        )
    return tensor.contiguous()
