"""Llama, Mistral and SmolLM3: plain layers, rows of q and k interleaved."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from rtp_core.loading.gguf_architectures.architecture import PLAIN, Architecture
from rtp_core.loading.gguf_metadata import Metadata
from rtp_core.loading.gguf_rope import original_length

log = logging.getLogger("rtp.loading")
_WINDOW, _TEMPERATURE = "attention.sliding_window", "attention.temperature_scale"


def _llama(metadata: Metadata) -> Mapping[str, Any]:
    """Mistral's first version is a Llama but for the window, which is on all layers."""
    window = metadata.window()
    if window is None:
        return {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    return _mistral_with(window)


def _mistral_with(window: int | None) -> Mapping[str, Any]:
    return {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "sliding_window": window,
    }


def _mistral3(metadata: Metadata) -> Mapping[str, Any]:
    """Queries are scaled by 1 + scale * ln(1 + floor(position / original length)), which is 1
    below the original length: where the file asks for it, the model is served up to there."""
    config = _mistral_with(metadata.window())
    scaled = metadata.get(_TEMPERATURE, 0)
    longest = metadata.count("context_length")
    if not scaled or (original := original_length(metadata)) >= longest:
        return config
    log.warning("context_cut key=%s from=%d to=%d", metadata.full(_TEMPERATURE), longest, original)
    return {**config, "max_position_embeddings": original}


def _smollm3(metadata: Metadata) -> Mapping[str, Any]:
    """No key says which layers do not rotate: it is every fourth."""
    del metadata
    return {
        "architectures": ["SmolLM3ForCausalLM"],
        "model_type": "smollm3",
        "no_rope_layer_interval": 4,
    }


LLAMA = Architecture("llama", PLAIN, _llama, frozenset({_WINDOW}), interleaved=True)
MISTRAL3 = Architecture(
    "mistral3", PLAIN, _mistral3, frozenset({_WINDOW, _TEMPERATURE}), interleaved=True
)
SMOLLM3 = Architecture("smollm3", PLAIN, _smollm3, interleaved=True)
