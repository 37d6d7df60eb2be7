"""GGUF metadata and names in Hugging Face's vocabulary, by architecture."""

from __future__ import annotations

import re
from typing import Any

from rtp_core.api import TensorInfo
from rtp_core.errors import ModelError
from rtp_core.loading.gguf import GGUFFile
from rtp_core.loading.gguf_metadata import Metadata
from rtp_core.loading.gguf_rope import FREQUENCIES, rope_parameters

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


def hugging_face_config(file: GGUFFile) -> dict[str, Any]:
    """config.json of the model. Raises ModelError naming what is missing."""
    metadata = Metadata(file)
    heads = metadata.count("attention.head_count")
    hidden = metadata.count("embedding_length")
    head_dim = metadata.count("attention.key_length", hidden // heads)
    names = {tensor.name for tensor in file.tensors}
    config: dict[str, Any] = {
        "architectures": [metadata.hugging_face_architecture],
        "model_type": metadata.architecture,
        "num_hidden_layers": metadata.count("block_count"),
        "hidden_size": hidden,
        "intermediate_size": metadata.count("feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.count("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": metadata.count("context_length"),
        "rms_norm_eps": metadata.number("attention.layer_norm_rms_epsilon"),
        "rope_parameters": rope_parameters(file, metadata, head_dim),
        "tie_word_embeddings": "output.weight" not in names,
        "vocab_size": _vocabulary(file),
        "hidden_act": "silu",
        "attention_bias": "blk.0.attn_q.bias" in names,
        "mlp_bias": "blk.0.ffn_gate.bias" in names,
        "eos_token_id": _end_ids(metadata),
    }
    bos = metadata.token_id("bos")
    return config if bos is None else {**config, "bos_token_id": bos}


def hugging_face_tensors(file: GGUFFile) -> dict[str, TensorInfo]:
    """The directory under Hugging Face names; q and k rows marked for un-permuting.

    llama.cpp stores Llama's q and k with interleaved rotary rows; ``unpermute_heads`` asks
    the sink to restore the half-split order.
    """
    metadata = Metadata(file)
    heads = metadata.count("attention.head_count")
    permuted = {
        "self_attn.q_proj": heads,
        "self_attn.k_proj": metadata.count("attention.head_count_kv", heads),
    }
    tensors: dict[str, TensorInfo] = {}
    for tensor in file.tensors:
        if tensor.name == FREQUENCIES:
            continue
        name, part = _rename(tensor.name)
        tensors[name] = TensorInfo(
            name,
            str(file.path),
            tensor.offset,
            tensor.num_bytes,
            tensor.shape,
            tensor.dtype,
            permuted.get(part, 0),
        )
    return tensors


def _rename(name: str) -> tuple[str, str]:
    """The Hugging Face name, and which part of a layer it is ("" outside layers)."""
    if name in _TOP:
        return _TOP[name], ""
    match = _BLOCK.fullmatch(name)
    if match is None or match[2] not in _LAYER:
        raise ModelError(f"GGUF tensor {name} is not known")
    part = _LAYER[match[2]]
    return f"model.layers.{match[1]}.{part}.{match[3]}", part


def _vocabulary(file: GGUFFile) -> int:
    for tensor in file.tensors:
        if tensor.name == "token_embd.weight":
            return tensor.shape[0]
    raise ModelError("GGUF tensor token_embd.weight is missing")


def _end_ids(metadata: Metadata) -> list[int]:
    """The declared end token and every control token that by its name ends a turn."""
    declared = (metadata.token_id("eos"), metadata.token_id("eot"))
    ends = {number for number in declared if number is not None}
    tokens = metadata.items("tokenizer.ggml.tokens")
    kinds = metadata.items("tokenizer.ggml.token_type")
    for number, (token, kind) in enumerate(zip(tokens, kinds, strict=False)):
        if kind == _CONTROL and token in END_TOKENS:
            ends.add(number)
    return sorted(ends)
