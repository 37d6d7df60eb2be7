"""Small checkpoints for the tests of this room, sound and broken."""

from __future__ import annotations

import json
import struct

import gguf
import numpy as np
import torch
from safetensors.torch import save_file

from rtp_core.models.llama import LlamaFamily

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    "vocab_size": 128,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "eos_token_id": 2,
}
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def table(config=None, dtype="float32"):
    family = LlamaFamily()
    return family.weights(family.spec({**CONFIG, **(config or {})}, dtype, "test"))


def tensors(config=None, seed=0):
    """Random float32 tensors under Hugging Face names, as the configuration wants them."""
    generator = torch.Generator().manual_seed(seed)
    wanted = table(config)
    shapes = {parameter.name: parameter.shape for parameter in wanted.parameters}
    return {
        rule.source: torch.randn(rule.num_rows, *shapes[rule.destination][1:], generator=generator)
        for rule in wanted.rules
    }


def parameters(source, config=None, dtype="float32"):
    """What loading must give: the tensors stacked and converted, by destination."""
    wanted = table(config, dtype)
    return {
        parameter.name: torch.cat(
            [source[rule.source] for rule in wanted.rules if rule.destination == parameter.name]
        ).to(getattr(torch, parameter.dtype))
        for parameter in wanted.parameters
    }


def write_model(folder, source, config=None, *, shards=1):
    """A model directory; more than one shard come with an index."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **(config or {})}))
    names = list(source)
    if shards == 1:
        save_file(source, folder / "model.safetensors")
        return folder
    weight_map = {}
    for number in range(shards):
        shard = f"model-{number + 1}-of-{shards}.safetensors"
        part = names[number::shards]
        save_file({name: source[name] for name in part}, folder / shard)
        weight_map.update(dict.fromkeys(part, shard))
    write_index(folder, weight_map)
    return folder


def write_index(folder, weight_map):
    content = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


def write_raw(path, header, data=b""):
    """A safetensors file with any header: an object, or the bytes that stand for one."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


# -- GGUF ----------------------------------------------------------------------------------

GGUF_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name):
    if name in GGUF_NAMES:
        return GGUF_NAMES[name]
    _, _, layer, *part, kind = name.split(".")
    return f"blk.{layer}.{GGUF_NAMES['.'.join(part)]}.{kind}"


def permuted(rows, heads):
    """llama.cpp's row order of q and k: the two halves of a head interleaved."""
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(rows.shape)


def write_gguf(path, source, config=None, *, quantization="F32", change=None):
    """A GGUF file as llama.cpp's converter lays it out; `change` edits the writer last."""
    values = {**CONFIG, **(config or {})}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(values["num_hidden_layers"])
    writer.add_embedding_length(values["hidden_size"])
    writer.add_feed_forward_length(values["intermediate_size"])
    writer.add_head_count(values["num_attention_heads"])
    writer.add_head_count_kv(values["num_key_value_heads"])
    writer.add_key_length(values["head_dim"])
    writer.add_rope_dimension_count(values["head_dim"])
    writer.add_context_length(values["max_position_embeddings"])
    writer.add_layer_norm_rms_eps(values["rms_norm_eps"])
    writer.add_rope_freq_base(values["rope_theta"])
    writer.add_eos_token_id(2)
    writer.add_bos_token_id(1)
    writer.add_token_list(["<unk>", "<s>", "</s>", "hello", "<|im_end|>", "<|eot_id|>"])
    writer.add_token_types([2, 3, 3, 1, 3, 1])
    kind = gguf.GGMLQuantizationType[quantization]
    for name, tensor in source.items():
        data = tensor.numpy()
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
        for part, key in heads.items():
            if part in name:
                data = permuted(data, values[key])
        if data.ndim == 1 and quantization not in ("F32", "F16", "BF16"):
            writer.add_tensor(gguf_name(name), data)
        else:
            packed = gguf.quantize(np.ascontiguousarray(data), kind)
            writer.add_tensor(gguf_name(name), packed, raw_dtype=kind)
    if change is not None:
        change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_values(path):
    """name -> float32 array of every tensor, by the gguf package."""
    return {
        tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type).reshape(
            tuple(reversed(tensor.shape.tolist()))
        )
        for tensor in gguf.GGUFReader(path).tensors
    }
