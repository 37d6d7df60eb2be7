"""CPU form: as `norm_gate_up`'s. torch's gelu has the same two paths as its silu."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional

from rtp_kernels.norm_gate_up.cpu import bind_gated

_TWICE_SLOPE = 2 * math.sqrt(2 / math.pi)
_CUBIC = 0.044715


def bind(dtype: str) -> Callable[..., torch.Tensor]:
    """As the reference, with float32 rows independent of the batch."""
    if dtype == "float32":
        return bind_gated(dtype, _exact_gelu)
    return bind_gated(dtype, partial(functional.gelu, approximate="tanh"))


def _exact_gelu(gate: torch.Tensor) -> torch.Tensor:
    """(1 + tanh(u)) / 2 is 1 / (1 + exp(-2u)): exp and exact arithmetic only."""
    inner = (gate * gate).mul_(_CUBIC).add_(1.0).mul_(gate).mul_(_TWICE_SLOPE)
    return gate / inner.neg_().exp_().add_(1.0)
