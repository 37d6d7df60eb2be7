"""Rotary frequencies from a Hugging Face configuration, old and new spelling.

``default`` and ``linear`` (Chen et al. 2023), ``dynamic`` (NTK-aware base), ``yarn`` (Peng et
al. 2023) and ``llama3`` (Llama 3.1). ``dynamic`` depends on the length of the text, so that
cached keys would disagree with new ones: the length is taken to be the configured maximum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rtp_core.api import RopeSpec
from rtp_core.errors import ModelError
from rtp_core.models.configuration import count, positive, refuse, section

if TYPE_CHECKING:
    import torch

DEFAULT_THETA = 10000.0
_MOST_STRETCHED = 10**6


def read_rope(config: Mapping[str, Any], head_dim: int, max_position: int) -> RopeSpec:
    """`rope_parameters` (transformers 5) or `rope_theta` with `rope_scaling` (before)."""
    old = {key: config[key] for key in ("rope_theta", "partial_rotary_factor") if key in config}
    values = {**old, **_flat(config, "rope_scaling"), **_flat(config, "rope_parameters")}
    return rope_from(values, head_dim, max_position)


def rope_from(values: Mapping[str, Any], head_dim: int, max_position: int) -> RopeSpec:
    """One set of parameters. Raises ModelError naming a kind or value that cannot be honoured."""
    kind = values.get("rope_type") or values.get("type") or "default"
    if not isinstance(kind, str) or kind not in _READERS:
        raise ModelError(
            f"config.json: rope_type {kind!r} is not supported",
            remedy=f"supported: {', '.join(KINDS)}",
        )
    share = positive(values, "partial_rotary_factor", 1.0)
    rotary_dim = int(head_dim * share)
    if share > 1.0 or rotary_dim % 2 or not rotary_dim:
        refuse("partial_rotary_factor", share, f"an even part of head_dim {head_dim}")
    plain = RopeSpec(positive(values, "rope_theta", DEFAULT_THETA), rotary_dim)
    return _READERS[kind](plain, values, max_position)


def inverse_frequencies(rope: RopeSpec | None) -> torch.Tensor:
    """float32 [rotary_dim / 2]: theta^(-2i/d), stretched by `kind`. Nothing turns without rope."""
    import torch

    if rope is None:
        return torch.empty(0)
    exponents = torch.arange(0, rope.rotary_dim, 2, dtype=torch.float32) / rope.rotary_dim
    plain = 1.0 / (rope.theta**exponents)
    stretch = _STRETCHES.get(rope.kind)
    return plain if stretch is None else stretch(plain, rope)


# ---- reading


def _flat(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """One set of parameters; transformers nests them where kinds of layers differ."""
    values = section(config, key)
    if any(isinstance(value, Mapping) for value in values.values()):
        refuse(key, "nested", "one set of parameters for all layers of this architecture")
    return values


def _default(plain: RopeSpec, values: Mapping[str, Any], max_position: int) -> RopeSpec:
    del values, max_position
    return plain


def _linear(plain: RopeSpec, values: Mapping[str, Any], max_position: int) -> RopeSpec:
    del max_position
    return replace(plain, kind="linear", factor=_factor(values))


def _dynamic(plain: RopeSpec, values: Mapping[str, Any], max_position: int) -> RopeSpec:
    """A larger base, for texts of `max_position` tokens."""
    factor, dim = _factor(values), plain.rotary_dim
    stretch = factor * max_position / _original(values, max_position) - (factor - 1)
    if stretch <= 1.0 or dim == 2:  # a single frequency, 1, whatever the base
        return plain
    return replace(plain, theta=plain.theta * stretch ** (dim / (dim - 2)))


def _llama3(plain: RopeSpec, values: Mapping[str, Any], max_position: int) -> RopeSpec:
    low, high = positive(values, "low_freq_factor"), positive(values, "high_freq_factor")
    if low >= high:
        refuse("low_freq_factor", low, f"less than high_freq_factor {high}")
    return replace(
        plain,
        kind="llama3",
        factor=_factor(values),
        low_freq_factor=low,
        high_freq_factor=high,
        original_max_position=_original(values, max_position),
    )


def _yarn(plain: RopeSpec, values: Mapping[str, Any], max_position: int) -> RopeSpec:
    original = _original(values, max_position)
    factor = _factor(values, max(1.0, max_position / original))
    if plain.theta <= 1.0:
        refuse("rope_theta", plain.theta, "more than 1 with yarn")
    return replace(
        plain,
        kind="yarn",
        factor=factor,
        original_max_position=original,
        beta_fast=positive(values, "beta_fast", 32.0),
        beta_slow=positive(values, "beta_slow", 1.0),
        truncate=values.get("truncate", True) is not False,
        attention_factor=_yarn_attention(values, factor),
    )


def _factor(values: Mapping[str, Any], default: float | None = None) -> float:
    factor = positive(values, "factor", default)
    if not 1.0 <= factor <= _MOST_STRETCHED:
        refuse("factor", factor, f"a number from 1 to {_MOST_STRETCHED}")
    return factor


def _original(values: Mapping[str, Any], max_position: int) -> int:
    return count(values, "original_max_position_embeddings", max_position)


def _yarn_attention(values: Mapping[str, Any], factor: float) -> float:
    """Given, or the ratio of the `mscale` pair's, or the paper's 0.1 ln(factor) + 1."""
    if values.get("attention_factor") is not None:
        return positive(values, "attention_factor")

    def magnitude(scale: float) -> float:
        return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0

    over, under = values.get("mscale"), values.get("mscale_all_dim")
    if over and under:
        return magnitude(over) / magnitude(under)
    return magnitude(1.0)


_READERS: dict[str, Callable[[RopeSpec, Mapping[str, Any], int], RopeSpec]] = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
}
KINDS = tuple(_READERS)


# ---- frequencies


def _stretch_linear(plain: torch.Tensor, rope: RopeSpec) -> torch.Tensor:
    return plain / rope.factor


def _stretch_llama3(plain: torch.Tensor, rope: RopeSpec) -> torch.Tensor:
    """Long wavelengths divided by `factor`, short ones kept, a ramp between (Llama 3.1)."""
    import torch

    wavelength = 2 * math.pi / plain
    low, high = rope.low_freq_factor, rope.high_freq_factor
    ramp = (rope.original_max_position / wavelength - low) / (high - low)
    return torch.lerp(plain / rope.factor, plain, ramp.clamp(0.0, 1.0))


def _stretch_yarn(plain: torch.Tensor, rope: RopeSpec) -> torch.Tensor:
    """Dimensions that turn less than `beta_slow` times over the original length are divided by
    `factor`, those that turn more than `beta_fast` times kept, a ramp between."""
    import torch

    dim = rope.rotary_dim

    def dimension(turns: float) -> float:
        length = rope.original_max_position / (turns * 2 * math.pi)
        return dim * math.log(length) / (2 * math.log(rope.theta))

    low, high = dimension(rope.beta_fast), dimension(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    width = (high - low) or 0.001  # the paper's code avoids a division by zero like this
    ramp = ((torch.arange(dim // 2, dtype=torch.float32) - low) / width).clamp(0.0, 1.0)
    return plain / rope.factor * ramp + plain * (1 - ramp)


_STRETCHES: dict[str, Callable[[torch.Tensor, RopeSpec], torch.Tensor]] = {
    "linear": _stretch_linear,
    "llama3": _stretch_llama3,
    "yarn": _stretch_yarn,
}
