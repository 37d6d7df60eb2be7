"""GGUF metadata and names in Hugging Face's vocabulary, by architecture."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rtp_core.api import TensorInfo
from rtp_core.errors import ModelError
from rtp_core.loading.gguf import GGUFFile

ARCHITECTURES = {"llama": "LlamaForCausalLM"}
END_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "</s>")
"""Control tokens that end a turn or a text wherever they are defined."""
_CONTROL = 3

_TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_IGNORED = ("rope_freqs.weight",)


def hugging_face_config(file: GGUFFile) -> dict[str, Any]:
    """config.json of the model. Raises ModelError naming what is missing."""
    metadata = file.metadata
    kind = metadata.get("general.architecture")
    if kind not in ARCHITECTURES:
        raise ModelError(
            f"GGUF architecture {kind!r} is not supported",
            remedy=f"supported: {', '.join(ARCHITECTURES)}",
        )

    def need(key: str) -> Any:
        full = f"{kind}.{key}"
        if full not in metadata:
            raise ModelError(f"GGUF metadata lacks {full}")
        return metadata[full]

    heads = need("attention.head_count")
    hidden = need("embedding_length")
    names = {tensor.name for tensor in file.tensors}
    embedding = next((one for one in file.tensors if one.name == "token_embd.weight"), None)
    if embedding is None:
        raise ModelError("GGUF tensor token_embd.weight is missing")
    config: dict[str, Any] = {
        "architectures": [ARCHITECTURES[kind]],
        "model_type": kind,
        "num_hidden_layers": need("block_count"),
        "hidden_size": hidden,
        "intermediate_size": need("feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.get(f"{kind}.attention.head_count_kv", heads),
        "head_dim": metadata.get(f"{kind}.attention.key_length", hidden // heads),
        "max_position_embeddings": need("context_length"),
        "rms_norm_eps": need("attention.layer_norm_rms_epsilon"),
        "rope_parameters": _rope(metadata, kind),
        "tie_word_embeddings": "output.weight" not in names,
        "vocab_size": embedding.shape[0],
        "hidden_act": "silu",
        "attention_bias": "blk.0.attn_q.bias" in names,
        "eos_token_id": _end_ids(metadata),
    }
    bos = metadata.get("tokenizer.ggml.bos_token_id")
    return config if bos is None else {**config, "bos_token_id": bos}


def hugging_face_tensors(file: GGUFFile, path: str) -> dict[str, TensorInfo]:
    """The directory under Hugging Face names; q and k rows marked for un-permuting.

    llama.cpp stores Llama's q and k with interleaved rotary rows; ``unpermute_heads`` asks
    the sink to restore the half-split order.
    """
    kind = file.metadata["general.architecture"]
    heads = file.metadata[f"{kind}.attention.head_count"]
    kv_heads = file.metadata.get(f"{kind}.attention.head_count_kv", heads)
    tensors: dict[str, TensorInfo] = {}
    for tensor in file.tensors:
        if tensor.name in _IGNORED:
            continue
        name = _rename(tensor.name)
        permuted = 0
        if kind == "llama" and ".self_attn.q_proj." in name:
            permuted = heads
        elif kind == "llama" and ".self_attn.k_proj." in name:
            permuted = kv_heads
        tensors[name] = TensorInfo(
            name, path, tensor.offset, tensor.num_bytes, tensor.shape, tensor.dtype, permuted
        )
    return tensors


def _rename(name: str) -> str:
    if name in _TOP:
        return _TOP[name]
    match = _BLOCK.fullmatch(name)
    if match is None or match[2] not in _LAYER:
        raise ModelError(f"GGUF tensor {name} is not known")
    return f"model.layers.{match[1]}.{_LAYER[match[2]]}.{match[3]}"


def _rope(metadata: Mapping[str, Any], kind: str) -> dict[str, Any]:
    scaling = metadata.get(f"{kind}.rope.scaling.type", "none")
    theta = metadata.get(f"{kind}.rope.freq_base", 10000.0)
    if scaling in ("none", ""):
        return {"rope_type": "default", "rope_theta": theta}
    factor = metadata.get(f"{kind}.rope.scaling.factor", 1.0)
    return {"rope_type": scaling, "rope_theta": theta, "factor": factor}


def _end_ids(metadata: Mapping[str, Any]) -> list[int]:
    """The declared end token and every control token that by its name ends a turn."""
    ends = {
        metadata[key]
        for key in ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
        if key in metadata
    }
    tokens = metadata.get("tokenizer.ggml.tokens", [])
    kinds = metadata.get("tokenizer.ggml.token_type", [])
    for number, (token, token_kind) in enumerate(zip(tokens, kinds, strict=False)):
        if token_kind == _CONTROL and token in END_TOKENS:
            ends.add(number)
    return sorted(ends)
