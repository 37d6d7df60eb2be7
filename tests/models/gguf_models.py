"""Random Hugging Face models written as llama.cpp's converter writes them.

Tensor names come from the gguf package's own map, row orders and offsets are the test's own
arithmetic, and quantized types leave in the model what the package decodes.
"""

from __future__ import annotations

import math
import re

import gguf
import numpy as np
import torch
from small_models import random_model
from tokenizers.pre_tokenizers import ByteLevel

NAMES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral3",
    "SmolLM3ForCausalLM": "smollm3",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3moe",
    "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3",
}
INTERLEAVED = ("llama", "mistral3", "smollm3")
CONTROL = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
VOCABULARY = 256 + 1 + len(CONTROL)
END = 256 + 1 + 1
SIZES = {kind.name: size for kind, size in gguf.GGML_QUANT_SIZES.items()}
HALVES = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
"""Byte offsets of the float16 scales in K blocks, which the package decodes but cannot make."""


def model_for_gguf(architecture, case, **changes):
    """A random model whose vocabulary is that of `write_tokenizer`."""
    return random_model(architecture, case, vocab_size=VOCABULARY, eos_token_id=END, **changes)


def write_model(path, model, *, types=lambda name: "F32", arch=None, change=None):
    """The file, after rounding `model` to what `types` say of each matrix by its GGUF name.

    `change` edits the writer last.
    """
    config = model.config
    arch = arch or NAMES[type(model).__name__]
    writer = gguf.GGUFWriter(path, arch)
    write_metadata(writer, arch, config)
    write_tokenizer(writer)
    layers = config.num_hidden_layers
    names = gguf.get_tensor_name_map(_kind(arch), layers)
    done = set()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            for gguf_name, part in _parts(names, name, parameter):
                _write_tensor(writer, arch, config, gguf_name, part, types(gguf_name))
                assert gguf_name not in done
                done.add(gguf_name)
    if (divisors := _llama3_divisors(config)) is not None:
        writer.add_tensor("rope_freqs.weight", divisors)
    if change is not None:
        change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _kind(arch):
    return next(kind for kind, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)


def _parts(names, name, parameter):
    """GGUF name and view of the parameter; stacked experts have two in one."""
    if match := re.fullmatch(r"model\.layers\.(\d+)\.mlp\.experts\.(\w+)", name):
        block, part = match.groups()
        if part == "down_proj":
            return [(f"blk.{block}.ffn_down_exps.weight", parameter)]
        gate, up = parameter.chunk(2, dim=1)
        return [(f"blk.{block}.ffn_gate_exps.weight", gate),
                (f"blk.{block}.ffn_up_exps.weight", up)]  # fmt: skip
    stem, _, kind = name.rpartition(".")
    found = names.get_name(stem)
    assert found is not None, name
    return [(f"{found}.{kind}", parameter)]


def _write_tensor(writer, arch, config, name, parameter, kind):
    """Quantize, leave the rounded values in the model, then reorder rows as the converter does."""
    values = parameter.numpy().copy()
    if values.ndim == 1 or name.endswith("ffn_gate_inp.weight"):
        kind = "F32"
        if arch.startswith("gemma") and name.endswith("norm.weight"):
            values = values + np.float32(1)
    if kind == "F32":
        packed, raw = values, None
    else:
        raw = gguf.GGMLQuantizationType[kind]
        packed = (
            _random_blocks(values.shape, kind) if kind in HALVES else gguf.quantize(values, raw)
        )
        decoded = gguf.dequantize(packed.reshape(-1, packed.shape[-1]), raw)
        parameter.copy_(torch.from_numpy(decoded.reshape(values.shape).copy()))
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    part = name.split(".")[-2]
    if arch in INTERLEAVED and part in heads:
        half = values.shape[0] // heads[part] // 2
        order = packed.reshape(heads[part], 2, half, -1).swapaxes(1, 2)
        packed = np.ascontiguousarray(order).reshape(packed.shape)
    writer.add_tensor(name, packed, raw_dtype=raw)


def _random_blocks(shape, kind):
    """Any codes, with small scales."""
    weights, size = SIZES[kind]
    blocks = math.prod(shape) // weights
    generator = np.random.default_rng(blocks + size)
    raw = generator.integers(0, 256, (blocks, size), dtype=np.uint8)
    spread = {"Q6_K": 64 * 32, "Q2_K": 15 * 3, "Q3_K": 32 * 4}.get(kind, 63 * 31)
    for at in HALVES[kind]:
        scales = (generator.standard_normal(blocks) * 0.6 / spread).astype(np.float16)
        raw[:, at : at + 2] = scales.view(np.uint8).reshape(blocks, 2)
    return raw.reshape(*shape[:-1], -1)


def write_metadata(writer, arch, config):
    """What the converter writes of the configuration."""
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if getattr(config, "head_dim", None):
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    rope = config.rope_parameters
    if arch in INTERLEAVED:
        head_dim = getattr(config, "head_dim", None)
        writer.add_rope_dimension_count(
            head_dim or config.hidden_size // config.num_attention_heads
        )
    _write_rope(writer, rope.get("full_attention", rope))
    if arch == "qwen3moe":
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    if getattr(config, "attn_logit_softcapping", None):
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    if getattr(config, "final_logit_softcapping", None):
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if arch.startswith("gemma") or type(config).__name__ == "MistralConfig":
        writer.add_sliding_window(config.sliding_window or 0)


def _write_rope(writer, rope):
    writer.add_rope_freq_base(rope["rope_theta"])
    kind = rope["rope_type"]
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(rope["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        if rope.get("attention_factor") is not None:
            writer.add_rope_scaling_yarn_attn_factor(rope["attention_factor"])
        if rope.get("beta_fast") is not None:
            writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
            writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])
        if rope.get("mscale_all_dim") is not None:
            writer.add_rope_scaling_yarn_log_mul(rope["mscale_all_dim"])


def _llama3_divisors(config):
    """float32 [head_dim / 2], or None where the model has another rotary kind."""
    rope = config.rope_parameters
    if rope.get("rope_type") != "llama3":
        return None
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    original, divisors = rope["original_max_position_embeddings"], []
    for index in range(0, dim, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (index / dim)
        smooth = (original / wavelength - low) / (high - low)
        smooth = min(1.0, max(0.0, smooth))
        divisors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(divisors, dtype=np.float32)


def write_tokenizer(writer):
    """One token a byte, one merge, and ChatML's control tokens."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([*sorted(ByteLevel.alphabet()), "he", *CONTROL])
    writer.add_token_types([1] * 257 + [3] * len(CONTROL))
    writer.add_token_merges(["h e"])
    writer.add_eos_token_id(END)
    writer.add_add_bos_token(False)
