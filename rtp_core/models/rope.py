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
_INFINITE = 1e300
"""More than any configuration means, and what a float still holds."""


def read_rope(config: Mapping[str, Any], head_dim: int) -> RopeSpec:
    """`rope_parameters` (transformers 5) or `rope_theta` with `rope_scaling` (before).

    Raises ModelError naming a kind that is not implemented or a value that is impossible.
    """
    old = {key: config[key] for key in ("rope_theta", "partial_rotary_factor") if key in config}
    values = {**old, **_section(config, "rope_scaling"), **_section(config, "rope_parameters")}
    kind = values.get("rope_type") or values.get("type") or "default"
    if kind not in KINDS:
        raise ModelError(
            f"config.json: rope_type {kind!r} is not supported",
            remedy=f"supported: {', '.join(KINDS)}",
        )
    partial = read_number(values, "partial_rotary_factor", 1.0)
    rotary_dim = int(head_dim * partial)
    if rotary_dim % 2 or not 2 <= rotary_dim <= head_dim:
        raise ModelError(f"config.json: {rotary_dim} of head_dim {head_dim} cannot be rotated")
    theta = read_number(values, "rope_theta", 10000.0)
    if kind == "default":
        return RopeSpec(theta, rotary_dim)
    low, high = (read_number(values, f"{which}_freq_factor") for which in ("low", "high"))
    if low >= high:
        raise ModelError(f"config.json: low_freq_factor {low} is not below high_freq_factor {high}")
    return RopeSpec(
        theta,
        rotary_dim,
        kind,
        read_number(values, "factor"),
        low,
        high,
        int(read_number(values, "original_max_position_embeddings")),
    )


def read_number(config: Mapping[str, Any], key: str, default: float | None = None) -> float:
    """A positive, finite number; null and a missing key give the default."""
    value: Any = config.get(key)
    value = default if value is None else value
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not known or not 0 < value < _INFINITE:
        raise ModelError(f"config.json: {key} is {value!r}, not a positive number")
    return float(value)


def _section(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """One flat object, null entries left out; transformers nests it where layers differ."""
    section = config.get(key) or {}
    if not isinstance(section, Mapping) or any(isinstance(v, Mapping) for v in section.values()):
        raise ModelError(f"config.json: {key} is not one flat object")
    return {name: value for name, value in section.items() if value is not None}


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
