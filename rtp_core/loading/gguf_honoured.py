"""No metadata of the architecture is passed over: a key is read, says the usual, or is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rtp_core.errors import ModelError
from rtp_core.loading.gguf_architectures.architecture import Architecture
from rtp_core.loading.gguf_metadata import Metadata

_READ = frozenset({
    "context_length", "embedding_length", "block_count", "feed_forward_length",
    "attention.head_count", "attention.head_count_kv", "attention.key_length",
    "attention.value_length", "attention.layer_norm_rms_epsilon", "rope.freq_base",
    "rope.dimension_count", "rope.scaling.type", "rope.scaling.factor", "rope.scale_linear",
    "rope.scaling.original_context_length", "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_log_multiplier",
})  # fmt: skip
"""Of every architecture."""
_WITHOUT_EFFECT = frozenset(
    {"attention.layer_norm_epsilon", "vocab_size", "rope.scaling.finetuned", "tensor_data_layout"}
)
_USUAL: Mapping[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0,),
    "attention.max_alibi_bias": (0,),
    "attention.sliding_window": (0,),
    "attention.temperature_scale": (0,),
    "attn_logit_softcapping": (0,),
    "embedding_scale": (0, 1),
    "expert_count": (0,),
    "expert_gating_func": (0, 1),  # not said, softmax
    "expert_group_count": (0, 1),
    "expert_group_used_count": (0, 1),
    "expert_shared_count": (0,),
    "expert_used_count": (0,),
    "expert_weights_scale": (0, 1),
    "final_logit_softcapping": (0,),
    "leading_dense_block_count": (0,),
    "logit_scale": (0, 1),
    "nextn_predict_layers": (0,),
    "pooling_type": (0,),
    "residual_scale": (0, 1),
    "rope.scaling.attn_factor": (1,),
    "rope.scaling.yarn_ext_factor": (1,),
    "use_parallel_residual": (False,),
}
"""Values that ask for nothing beyond what every model does."""


def check_honoured(metadata: Metadata, architecture: Architecture) -> None:
    """Raises ModelError naming a key that would change the model and is not read."""
    for key in metadata.names():
        if key in _READ or key in _WITHOUT_EFFECT or key in architecture.keys:
            continue
        if key not in _USUAL:
            raise ModelError(
                f"{metadata.path}: GGUF metadata {metadata.full(key)} is not known for this "
                "architecture and could change the model",
                remedy="use another conversion of the model, or its safetensors",
            )
        if metadata.get(key, None) not in _USUAL[key]:
            allowed = " or ".join(map(repr, _USUAL[key]))
            metadata.refuse(key, metadata.get(key, None), f"{allowed}: it is not supported")
