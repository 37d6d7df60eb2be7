"""The operations of `rows` in plain torch: their definition."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional


def rms_norm(
    x: torch.Tensor, norm: torch.Tensor, eps: float, residual: torch.Tensor | None = None
) -> torch.Tensor:
    """See `rows.rms_norm`."""
    wide = x.float()
    done = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps) * norm.float()
    return (done if residual is None else done + residual.float()).to(x.dtype)


def gate(both: torch.Tensor, activation: Literal["silu", "gelu_tanh"] = "silu") -> torch.Tensor:
    """See `rows.gate`."""
    gate, up = both.float().chunk(2, dim=-1)
    if activation == "gelu_tanh":
        return (functional.gelu(gate, approximate="tanh") * up).to(both.dtype)
    return (functional.silu(gate) * up).to(both.dtype)
