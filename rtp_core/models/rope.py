"""Rotary frequencies from a Hugging Face configuration, old and new spelling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rtp_core.api import RopeSpec
from rtp_core.errors import ModelError

if TYPE_CHECKING:
    import torch

KINDS = ("default", "llama3")


def read_rope(config: Mapping[str, Any], head_dim: int) -> RopeSpec:
    """`rope_parameters` (transformers 5) or `rope_theta` with `rope_scaling` (before).

    Raises ModelError naming a kind that is not implemented.
    """
    new = config.get("rope_parameters") or {}
    values = {**(config.get("rope_scaling") or {}), **new}
    kind = values.get("rope_type") or values.get("type") or "default"
    if kind not in KINDS:
        raise ModelError(
            f"rope_type {kind!r} is not supported", remedy=f"supported: {', '.join(KINDS)}"
        )
    theta = values.get("rope_theta", config.get("rope_theta", 10000.0))
    partial = values.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
    return RopeSpec(
        theta=float(theta),
        rotary_dim=int(head_dim * float(partial)),
        kind=kind,
        factor=float(values.get("factor", 1.0)),
        low_freq_factor=float(values.get("low_freq_factor", 1.0)),
        high_freq_factor=float(values.get("high_freq_factor", 4.0)),
        original_max_position=int(values.get("original_max_position_embeddings", 0)),
    )


def inverse_frequencies(rope: RopeSpec) -> torch.Tensor:
    """float32 [rotary_dim / 2]: theta^(-2i/d), stretched for long contexts by `kind`."""
    import torch

    exponents = torch.arange(0, rope.rotary_dim, 2, dtype=torch.float32) / rope.rotary_dim
    plain = 1.0 / (rope.theta**exponents)
    return _llama3(plain, rope) if rope.kind == "llama3" else plain


def _llama3(plain: torch.Tensor, rope: RopeSpec) -> torch.Tensor:
    """Long wavelengths divided by `factor`, short ones kept, a ramp between (Llama 3.1)."""
    import torch

    wavelength = 2 * math.pi / plain
    low, high = rope.low_freq_factor, rope.high_freq_factor
    ramp = (rope.original_max_position / wavelength - low) / (high - low)
    ramp = ramp.clamp(0.0, 1.0)
    return torch.lerp(plain / rope.factor, plain, ramp)
