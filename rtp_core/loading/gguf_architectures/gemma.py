"""Gemma 2, and the text model of Gemma 3: norms around every block, stored as 1 + weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rtp_core.loading.gguf_architectures.architecture import (
    ATTENTION,
    GATED,
    NORMED_HEADS,
    Architecture,
)
from rtp_core.loading.gguf_metadata import Metadata
from rtp_core.loading.gguf_rope import rope_parameters

_LAYER = {
    **ATTENTION,
    **GATED,
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_FULL, _SLIDING = "full_attention", "sliding_attention"
_WINDOW, _PATTERN, _SCALE, _LOCAL_BASE, _SCORES, _LOGITS = (
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attention.scale",
    "rope.freq_base_swa",
    "attn_logit_softcapping",
    "final_logit_softcapping",
)
_KEYS = frozenset({_WINDOW, _PATTERN, _SCALE, _LOGITS})
_LAYERS_OF_27B = {"gemma2": 46, "gemma3": 62}
"""The one size of either whose scores are scaled by hidden size / heads, not by head size."""


def _gemma2(metadata: Metadata) -> Mapping[str, Any]:
    kinds = _kinds(metadata, period=2)
    return {
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
        "query_pre_attn_scalar": _score_divisor(metadata),
        "sliding_window": metadata.window(4096),
        "layer_types": kinds if metadata.window(4096) is not None else [_FULL] * len(kinds),
        "attn_logit_softcapping": metadata.number(_SCORES, 50.0),
        "final_logit_softcapping": metadata.number(_LOGITS, 30.0),
    }


def _gemma3(metadata: Metadata) -> Mapping[str, Any]:
    """Sliding layers have a base of their own and are not stretched."""
    window, kinds = metadata.window(), _kinds(metadata, period=6)
    limit = metadata.get(_LOGITS, 0)
    local = {"rope_type": "default", "rope_theta": metadata.number(_LOCAL_BASE, 10000.0)}
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "query_pre_attn_scalar": _score_divisor(metadata),
        "sliding_window": window,
        "layer_types": kinds if window is not None else [_FULL] * len(kinds),
        "final_logit_softcapping": metadata.number(_LOGITS) if limit else None,
        "rope_parameters": {_FULL: rope_parameters(metadata), _SLIDING: local},
    }


def _kinds(metadata: Metadata, period: int) -> list[str]:
    """The last of each `period` layers is full; a pattern is another period, or true for each
    layer that slides."""
    layers = metadata.layers()
    pattern = metadata.get(_PATTERN, period)
    if isinstance(pattern, list):
        if len(pattern) != layers or not all(isinstance(one, bool) for one in pattern):
            metadata.refuse(_PATTERN, pattern, f"a number, or {layers} booleans, one a layer")
        return [_SLIDING if slides else _FULL for slides in pattern]
    period = metadata.count(_PATTERN, period)
    return [_SLIDING if (layer + 1) % period else _FULL for layer in range(layers)]


def _score_divisor(metadata: Metadata) -> float:
    """Scores are divided by its square root."""
    if metadata.get(_SCALE, None) is not None:
        scale = metadata.number(_SCALE)
        return 1 / scale / scale
    if metadata.layers() == _LAYERS_OF_27B[metadata.architecture]:
        return metadata.count("embedding_length") // metadata.count("attention.head_count")
    return metadata.head_size()


GEMMA2 = Architecture("gemma2", _LAYER, _gemma2, _KEYS | {_SCORES}, norm_offset=1.0)
GEMMA3 = Architecture(
    "gemma3", {**_LAYER, **NORMED_HEADS}, _gemma3, _KEYS | {_LOCAL_BASE}, norm_offset=1.0
)
