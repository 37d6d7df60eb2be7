"""Rotary parameters from GGUF metadata, in Hugging Face's form."""

from __future__ import annotations

import math
import struct
from typing import Any

from rtp_core.errors import ModelError
from rtp_core.loading.gguf import GGUFTensor
from rtp_core.loading.gguf_metadata import Metadata

FREQUENCIES = "rope_freqs.weight"
"""Divisors of the frequencies, float32 [head_dim / 2]; only Llama 3.1 and later have them."""
_LOW, _HIGH, _ORIGINAL = 1.0, 4.0, 8192
_TOLERANCE = 1e-3
_TYPE, _FACTOR, _OLD_FACTOR, _TURNED = (
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scale_linear",
    "rope.dimension_count",
)
_YARN = "rope.scaling.yarn_"


def rope_parameters(metadata: Metadata) -> dict[str, Any]:
    """Of all layers, or of the full ones where layers differ.

    Raises ModelError for what cannot be expressed.
    """
    plain = {"rope_theta": metadata.number("rope.freq_base", 10000.0), **_partial(metadata)}
    # llama.cpp takes a factor without a type for a linear one.
    kind, factor = metadata.get(_TYPE, "linear"), _factor(metadata)
    if kind not in ("none", "", "linear", "yarn"):
        metadata.refuse(_TYPE, kind, "none, linear or yarn")
    scaled = kind == "yarn" or (kind == "linear" and factor != 1.0)
    if FREQUENCIES in metadata.tensors:
        if scaled:
            metadata.refuse(_TYPE, kind, f"none beside the tensor {FREQUENCIES}")
        return {**plain, **_llama3(metadata, plain["rope_theta"])}
    if not scaled:
        return {**plain, "rope_type": "default"}
    if kind == "linear":
        return {**plain, "rope_type": "linear", "factor": factor}
    return {**plain, **_yarn(metadata, factor)}


def original_length(metadata: Metadata) -> int:
    """Positions the model was trained for before it was stretched."""
    return metadata.count("rope.scaling.original_context_length", metadata.count("context_length"))


def _factor(metadata: Metadata) -> float:
    """0 stands for none."""
    key = _FACTOR if metadata.get(_FACTOR, None) is not None else _OLD_FACTOR
    return 1.0 if metadata.get(key, 0) == 0 else metadata.number(key)


def _partial(metadata: Metadata) -> dict[str, Any]:
    """Only the leading dimensions of a head rotate, where the file says so."""
    size = metadata.head_size()
    turned = metadata.count(_TURNED, size)
    if turned == size:
        return {}
    if turned > size or turned % 2:
        metadata.refuse(_TURNED, turned, f"an even number up to the head size {size}")
    share = turned / size
    exact = int(size * share) == turned
    return {"partial_rotary_factor": share if exact else math.nextafter(share, 1.0)}


def _yarn(metadata: Metadata, factor: float) -> dict[str, Any]:
    """The converter writes Hugging Face's ``attention_factor`` as ``yarn_attn_factor`` and its
    ``mscale_all_dim`` as ``yarn_log_multiplier``; ``mscale`` is taken to be 1."""
    values: dict[str, Any] = {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": original_length(metadata),
    }
    names = {
        "attn_factor": "attention_factor",
        "beta_fast": "beta_fast",
        "beta_slow": "beta_slow",
        "log_multiplier": "mscale_all_dim",
    }
    for name, ours in names.items():
        if metadata.get(_YARN + name, None) is not None:
            values[ours] = metadata.number(_YARN + name)
    return {**values, "mscale": 1.0} if "mscale_all_dim" in values else values


def _divisors(metadata: Metadata, tensor: GGUFTensor) -> tuple[float, ...]:
    half = metadata.count(_TURNED, metadata.head_size()) // 2
    if tensor.dtype != "F32" or tensor.shape != (half,):
        raise ModelError(
            f"{metadata.path}: GGUF tensor {FREQUENCIES} is {tensor.dtype} {list(tensor.shape)}, "
            f"expected F32 [{half}]"
        )
    with metadata.path.open("rb") as source:
        source.seek(tensor.offset)
        return struct.unpack(f"<{tensor.shape[0]}f", source.read(tensor.num_bytes))


def _llama3(metadata: Metadata, theta: float) -> dict[str, Any]:
    """The parameters that Llama 3.1's divisors were made from; the file holds these only."""
    divisors = _divisors(metadata, metadata.tensor(FREQUENCIES))
    where = f"{metadata.path}: GGUF tensor {FREQUENCIES}"
    if not all(1.0 <= divisor < math.inf for divisor in divisors):
        raise ModelError(f"{where} holds impossible divisors, expected finite ones from 1 up")
    kept = [_kept(theta ** (index / len(divisors))) for index in range(len(divisors))]
    stretched = 1 / divisors[-1] - kept[-1]
    factor = max(1.0, (1 - kept[-1]) / stretched) if stretched > 0 else 1.0
    for index, (divisor, share) in enumerate(zip(divisors, kept, strict=True)):
        if not math.isclose(1 / divisor, (1 - share) / factor + share, rel_tol=_TOLERANCE):
            raise ModelError(
                f"{where} is not the scaling of Llama 3.1: divisor {index} is {divisor:g}"
            )
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": _LOW,
        "high_freq_factor": _HIGH,
        "original_max_position_embeddings": _ORIGINAL,
    }


def _kept(period: float) -> float:
    """How much of a frequency's own value Llama 3.1 keeps; the rest is divided."""
    ramp = (_ORIGINAL / (2 * math.pi * period) - _LOW) / (_HIGH - _LOW)
    return min(1.0, max(0.0, ramp))
