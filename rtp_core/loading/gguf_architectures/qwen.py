"""Qwen2 and Qwen2.5, Qwen3, and Qwen3 with experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rtp_core.loading.gguf_architectures.architecture import (
    ATTENTION,
    NORMED_HEADS,
    PLAIN,
    Architecture,
)
from rtp_core.loading.gguf_metadata import Metadata

_EXPERTS = {
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.experts.{}.gate_proj",
    "ffn_up_exps": "mlp.experts.{}.up_proj",
    "ffn_down_exps": "mlp.experts.{}.down_proj",
}
_NUMBER, _USED, _WIDTH, _NORMALIZED = (
    "expert_count",
    "expert_used_count",
    "expert_feed_forward_length",
    "expert_weights_norm",
)


def _qwen2(metadata: Metadata) -> Mapping[str, Any]:
    del metadata
    return {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}


def _qwen3(metadata: Metadata) -> Mapping[str, Any]:
    del metadata
    return {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}


def _qwen3moe(metadata: Metadata) -> Mapping[str, Any]:
    """Experts in every layer. Where no key says so, their shares are normalised."""
    used = metadata.count(_USED)
    return {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "num_experts": metadata.experts(),
        "num_experts_per_tok": used,
        "moe_intermediate_size": _expert_width(metadata, used),
        "norm_topk_prob": metadata.flag(_NORMALIZED, default=True),
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }


def _expert_width(metadata: Metadata, used: int) -> int:
    """Where no key says so, the experts in use are as wide as a dense layer together."""
    if metadata.get(_WIDTH, None) is not None:
        return metadata.count(_WIDTH)
    return metadata.count("feed_forward_length") // used


QWEN2 = Architecture("qwen2", PLAIN, _qwen2)
QWEN3 = Architecture("qwen3", {**PLAIN, **NORMED_HEADS}, _qwen3)
QWEN3MOE = Architecture(
    "qwen3moe",
    {**ATTENTION, **NORMED_HEADS, **_EXPERTS},
    _qwen3moe,
    frozenset({_NUMBER, _USED, _WIDTH, _NORMALIZED}),
)
