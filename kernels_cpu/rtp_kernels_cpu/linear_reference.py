"""The operations of `linear` in plain torch, with the same quantization: their definition."""

from __future__ import annotations

import torch
from torch.nn import functional

from rtp_kernels.linear_weight import GROUP
from rtp_kernels_cpu.linear import LLAMA, Variant
from rtp_kernels_cpu.weights import PackedWeight, unpack

_TINY = 1e-30
"""A group with no greater magnitude counts as zero."""


def quantize_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 [tokens, in] -> codes float32 [tokens, groups, 32] of whole numbers in
    -127 ... 127, scale [tokens, groups]; a group that is not finite has scale NaN."""
    groups = x.unflatten(1, (-1, GROUP))
    peak = groups.abs().amax(-1)
    zero = peak < _TINY
    factor = torch.where(zero, 0.0, 127.0 / peak)
    codes = (groups * factor[..., None]).round()
    finite = peak.isfinite()
    scale = torch.where(finite, torch.where(zero, 0.0, peak / 127.0), torch.nan)
    return torch.where(finite[..., None], codes, 0.0), scale


def product(x: torch.Tensor, weight: PackedWeight) -> torch.Tensor:
    """float32 [tokens, in] -> float32 [tokens, out]: whole numbers within a group, then
    scales. Plainly for bfloat16 weights."""
    if weight.bits == 16:
        return x @ weight.panels.float().T
    unpacked = unpack(weight)
    codes, scale = quantize_rows(x)
    groups = unpacked.q.float().unflatten(1, (-1, GROUP)) - weight.centre
    dots = torch.einsum("tgk,ogk->tog", codes, groups)
    out = (dots * scale[:, None] * unpacked.scale.float()).sum(-1)
    if weight.has_minimum:
        out = out + (codes.sum(-1) * scale) @ unpacked.minimum.float().T
    return out


def rms_norm(x: torch.Tensor, norm: torch.Tensor, eps: float, variant: Variant) -> torch.Tensor:
    """float32, unrounded."""
    wide = x.float()
    inverse = 1.0 / torch.sqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return wide * inverse * (norm.float() + variant.norm_offset)


def linear(x: torch.Tensor, weight: PackedWeight, bias: torch.Tensor | None = None) -> torch.Tensor:
    """See `linear.linear`."""
    return _biased(product(x.float(), weight), bias).to(x.dtype)


def norm_linear(
    x: torch.Tensor,
    norm: torch.Tensor,
    eps: float,
    weight: PackedWeight,
    bias: torch.Tensor | None = None,
    variant: Variant = LLAMA,
) -> torch.Tensor:
    """See `linear.norm_linear`."""
    done = product(rms_norm(x, norm, eps, variant), weight)
    return _biased(done, bias).to(x.dtype)


def linear_residual(
    x: torch.Tensor,
    weight: PackedWeight,
    residual: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """See `linear.linear_residual`."""
    done = _biased(product(x.float(), weight), bias)
    return (done + residual.float()).to(x.dtype)


def norm_gate_up(
    x: torch.Tensor,
    norm: torch.Tensor,
    eps: float,
    weight: PackedWeight,
    bias: torch.Tensor | None = None,
    variant: Variant = LLAMA,
) -> torch.Tensor:
    """See `linear.norm_gate_up`."""
    done = product(rms_norm(x, norm, eps, variant), weight)
    gate, up = _biased(done, bias).chunk(2, dim=-1)
    if variant.activation == "gelu_tanh":
        return (functional.gelu(gate, approximate="tanh") * up).to(x.dtype)
    return (functional.silu(gate) * up).to(x.dtype)


def head(
    x: torch.Tensor,
    norm: torch.Tensor,
    eps: float,
    weight: PackedWeight,
    variant: Variant = LLAMA,
) -> torch.Tensor:
    """See `linear.head`."""
    return product(rms_norm(x, norm, eps, variant), weight)


def _biased(values: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return values if bias is None else values + bias.float()
