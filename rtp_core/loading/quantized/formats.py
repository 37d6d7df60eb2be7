"""From `quantization_config` to tensors: the format by its name, or why it is not read."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

from rtp_core.api import TensorInfo
from rtp_core.errors import ModelError
from rtp_core.loading.quantized import awq, compressed_tensors, fp8, gptq
from rtp_core.loading.quantized.settings import SECTION, section
from rtp_core.loading.quantized.stored import Stored
from rtp_core.loading.quantized.tensor import Quantization

log = logging.getLogger("rtp.loading")
_SECTIONS = (SECTION, "compression_config")
"""The second is compressed-tensors' name for it in older files."""
_READERS: Mapping[str, Callable[[Mapping[str, Any], Stored], None]] = {
    "fp8": fp8.read,
    "compressed-tensors": compressed_tensors.read,
    "awq": awq.read,
    "gptq": gptq.read,
}
FORMATS = tuple(_READERS)
"""Values of quant_method that are read."""
_MXFP4 = (
    "4-bit floats with a power-of-two scale for every 32 weights, in the experts of gpt-oss, "
    "an architecture that is not served"
)
_REMEDY = f"take the unquantized checkpoint, a .gguf file, or one in {', '.join(FORMATS)}"
_SKIPPED = {
    "scale of cached keys and values": re.compile(
        r"(.*\.)?([kvq]|kv|prob)(_cache)?_(scale|zero_point)|.*\.[kvq]_proj\.output_scale"
    ),
    "scale of activations": re.compile(
        r".*\.((in|out)put_(scale|zero_point)|activation_scale|act_scale)"
    ),
}


def read_quantization(
    config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]
) -> tuple[Quantization | None, Mapping[str, TensorInfo]]:
    """What was quantized, and the tensors with each quantized weight as one.

    Reads headers, and of compressed-tensors the shapes that it stores as tensors. Raises
    ModelError for formats and settings that cannot be honoured, WeightLoadError for tensors
    that are missing or have another dtype or shape than the format says.
    """
    settings = next((section(config, key) for key in _SECTIONS if config.get(key)), None)
    if settings is None:
        return None, tensors
    method = settings.get("quant_method")
    if not isinstance(method, str) or method not in _READERS:
        raise _unknown(method)
    stored = Stored(tensors)
    for why, names in _SKIPPED.items():
        stored.skip(why, names.fullmatch)
    _READERS[method](settings, stored)
    found = Quantization(method, stored.kinds, stored.skipped)
    for why, count in found.skipped.items():
        log.info("tensors_skipped kind=%r count=%d", why, count)
    return found, stored.tensors


def without_quantization(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of the model that the weights make once they are read."""
    return {key: value for key, value in config.items() if key not in _SECTIONS}


def _unknown(method: Any) -> ModelError:
    if method == "mxfp4":
        return ModelError(f"config.json: quant_method mxfp4 is not read: {_MXFP4}", remedy=_REMEDY)
    found = "missing" if method is None else f"{method!r:.40}, which is not read"
    return ModelError(f"config.json: {SECTION}.quant_method is {found}", remedy=_REMEDY)
