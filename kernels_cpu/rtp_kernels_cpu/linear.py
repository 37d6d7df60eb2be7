"""Linear layers for few rows: decoding and verifying.

Signatures are those of `rtp_kernels`, with a `PackedWeight` for the dense weight. Activations
and results are bfloat16. For weights of 4 and 8 bits, inputs are quantized to 8 bits in groups
of 32; for bfloat16 weights they are not. Products are summed in float32 and rounded once,
after bias, residual or activation. A row has the same bits whatever
other rows share the call, on every number of threads and every instruction set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from rtp_kernels_cpu.library import library
from rtp_kernels_cpu.weights import PackedWeight

_PLAIN, _GATED, _LOGITS = range(3)
_ACTIVATIONS = {"silu": 0, "gelu_tanh": 1}


@dataclass(frozen=True, slots=True)
class Variant:
    """What model families do differently: the norm's weight is `norm_offset` + norm."""

    norm_offset: float = 0.0
    activation: Literal["silu", "gelu_tanh"] = "silu"


LLAMA = Variant()
GEMMA = Variant(1.0, "gelu_tanh")


def linear(x: torch.Tensor, weight: PackedWeight, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x [tokens, in], weight [out, in], bias [out] or None -> [tokens, out]."""
    out = _output(x, weight, weight.rows)
    _run(x, weight, bias, out)
    return out


def norm_linear(
    x: torch.Tensor,
    norm: torch.Tensor,
    eps: float,
    weight: PackedWeight,
    bias: torch.Tensor | None = None,
    variant: Variant = LLAMA,
) -> torch.Tensor:
    """RMS norm of x [tokens, in] by norm [in], bfloat16 or float32, then the linear layer
    -> [tokens, out]."""
    out = _output(x, weight, weight.rows)
    _run(x, weight, bias, out, norm=(norm, eps, variant))
    return out


def linear_residual(
    x: torch.Tensor,
    weight: PackedWeight,
    residual: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """The linear layer added to residual [tokens, out] -> [tokens, out]."""
    out = _output(x, weight, weight.rows)
    _run(x, weight, bias, out, residual=residual)
    return out


def norm_gate_up(
    x: torch.Tensor,
    norm: torch.Tensor,
    eps: float,
    weight: PackedWeight,
    bias: torch.Tensor | None = None,
    variant: Variant = LLAMA,
) -> torch.Tensor:
    """Norm, gate and up in one product, activation(gate) * up: [tokens, width].

    weight [2 * width, in] has the gate's rows first and was packed in 2 parts; bias
    [2 * width] or None.
    """
    if weight.parts != 2:
        raise ValueError("gate and up must be packed in 2 parts")
    out = _output(x, weight, weight.rows // 2)
    _run(x, weight, bias, out, norm=(norm, eps, variant))
    return out


def head(
    x: torch.Tensor,
    norm: torch.Tensor,
    eps: float,
    weight: PackedWeight,
    variant: Variant = LLAMA,
) -> torch.Tensor:
    """Norm, then the linear layer, unrounded: float32 [tokens, vocabulary]."""
    out = _output(x, weight, weight.rows, torch.float32)
    _run(x, weight, None, out, norm=(norm, eps, variant))
    return out


def _output(
    x: torch.Tensor, weight: PackedWeight, width: int, dtype: torch.dtype = torch.bfloat16
) -> torch.Tensor:
    if x.dim() != 2 or x.shape[1] != weight.columns:
        raise ValueError(f"x must be [tokens, {weight.columns}], not {list(x.shape)}")
    padded = weight.bits < 16 and weight.parts == 2 and weight.rows % 32
    if padded and width == weight.rows:
        raise ValueError("a weight packed in 2 padded parts only serves norm_gate_up")
    return torch.empty(x.shape[0], width, dtype=dtype)


def _run(
    x: torch.Tensor,
    weight: PackedWeight,
    bias: torch.Tensor | None,
    out: torch.Tensor,
    *,
    norm: tuple[torch.Tensor, float, Variant] | None = None,
    residual: torch.Tensor | None = None,
) -> None:
    scale, eps, variant = norm or (None, 0.0, LLAMA)
    form = _PLAIN if out.shape[1] == weight.rows else _GATED
    if out.dtype == torch.float32:
        form = _LOGITS
    failed = library().rtp_linear(
        weight.address,
        _address(x, x.shape),
        x.shape[0],
        *_norm(scale, weight.columns),
        eps,
        variant.norm_offset,
        bias if bias is None else _address(bias, (weight.rows,)),
        residual if residual is None else _address(residual, out.shape),
        out.data_ptr(),
        form,
        _ACTIVATIONS[variant.activation],
    )
    if failed:
        raise MemoryError("no memory for quantized activations")


def _norm(norm: torch.Tensor | None, columns: int) -> tuple[int | None, bool]:
    """Where the norm's weights begin, and whether they are float32."""
    if norm is None:
        return None, False
    wide = norm.dtype == torch.float32
    return _address(norm, (columns,), torch.float32 if wide else torch.bfloat16), wide


def _address(
    tensor: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.bfloat16
) -> int:
    """Where a tensor's data begin; ValueError unless it is what the library will read."""
    usable = tensor.is_cpu and tensor.is_contiguous()
    if not usable or tensor.dtype != dtype or tensor.shape != shape:
        raise ValueError(
            f"expected contiguous {dtype} {list(shape)} on the CPU, got {tensor.dtype} "
            f"{list(tensor.shape)}"
        )
    return tensor.data_ptr()
