"""Rotary parameters from GGUF metadata, in Hugging Face's form."""

from __future__ import annotations

import math
import struct
from typing import Any

from rtp_core.errors import ModelError
from rtp_core.loading.gguf import GGUFFile, GGUFTensor
from rtp_core.loading.gguf_metadata import Metadata

FREQUENCIES = "rope_freqs.weight"
"""Divisors of the frequencies, float32 [head_dim / 2]; only Llama 3.1 and later have them."""
_LOW, _HIGH, _ORIGINAL = 1.0, 4.0, 8192
_TOLERANCE = 1e-3


def rope_parameters(file: GGUFFile, metadata: Metadata, head_dim: int) -> dict[str, Any]:
    """Raises ModelError for what cannot be expressed."""
    theta = metadata.number("rope.freq_base", 10000.0)
    turned = metadata.count("rope.dimension_count", head_dim)
    if turned != head_dim:
        raise ModelError(f"GGUF rotates {turned} of {head_dim} dimensions, which is not supported")
    for tensor in file.tensors:
        if tensor.name == FREQUENCIES:
            return _llama3(_read(file, tensor), theta)
    scaling = metadata.get("rope.scaling.type", "none")
    if scaling in ("none", ""):
        return {"rope_type": "default", "rope_theta": theta}
    original = metadata.count(
        "rope.scaling.original_context_length", metadata.count("context_length")
    )
    return {
        "rope_type": scaling,
        "rope_theta": theta,
        "factor": metadata.number("rope.scaling.factor", 1.0),
        "original_max_position_embeddings": original,
    }


def _read(file: GGUFFile, tensor: GGUFTensor) -> tuple[float, ...]:
    if tensor.dtype != "F32" or len(tensor.shape) != 1:
        raise ModelError(f"GGUF tensor {FREQUENCIES} is not a float32 vector")
    with file.path.open("rb") as source:
        source.seek(tensor.offset)
        return struct.unpack(f"<{tensor.shape[0]}f", source.read(tensor.num_bytes))


def _llama3(divisors: tuple[float, ...], theta: float) -> dict[str, Any]:
    """The parameters that Llama 3.1's divisors were made from; the file holds these only."""
    factor = max(divisors, default=0.0)
    if not all(1.0 <= divisor < math.inf for divisor in divisors) or factor < 1.0:
        raise ModelError(f"GGUF tensor {FREQUENCIES} holds impossible divisors")
    for index, divisor in enumerate(divisors):
        wavelength = 2 * math.pi * theta ** (index / len(divisors))
        ramp = (_ORIGINAL / wavelength - _LOW) / (_HIGH - _LOW)
        ramp = min(1.0, max(0.0, ramp))
        if not math.isclose(1 / divisor, (1 - ramp) / factor + ramp, rel_tol=_TOLERANCE):
            raise ModelError(f"GGUF tensor {FREQUENCIES} is not the scaling of Llama 3.1")
    return {
        "rope_type": "llama3",
        "rope_theta": theta,
        "factor": factor,
        "low_freq_factor": _LOW,
        "high_freq_factor": _HIGH,
        "original_max_position_embeddings": _ORIGINAL,
    }
