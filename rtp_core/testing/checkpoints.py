"""Checkpoints made for tests: safetensors files of any layout, and a tiny random Llama."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SIZES = {"F32": 4, "BF16": 2, "F16": 2, "U8": 1}


@dataclass(frozen=True, slots=True)
class RawTensor:
    """Bytes with a name, shape and safetensors dtype."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes


def random_tensor(name: str, dtype: str, shape: Sequence[int], seed: int) -> RawTensor:
    """Any bytes: loaders move them and do not read them."""
    count = _SIZES[dtype]
    for size in shape:
        count *= size
    return RawTensor(name, dtype, tuple(shape), random.Random(seed).randbytes(count))


def write_safetensors(path: Path, tensors: Sequence[RawTensor], *, padding: int = 0) -> None:
    """In the order given. `padding` spaces after the header shift every offset.

    Format: u64 little-endian header length, JSON header (spaces may follow it), the bytes.
    """
    header: dict[str, Any] = {}
    at = 0
    for tensor in tensors:
        end = at + len(tensor.data)
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [at, end],
        }
        at = end
    raw = json.dumps(header).encode() + b" " * padding
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for tensor in tensors:
            file.write(tensor.data)


LLAMA_CONFIG: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "hidden_act": "silu",
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "eos_token_id": 1,
}
"""A configuration that nearly every decoder family can read."""


def write_tiny_llama(directory: Path, *, scale: float = 0.4, **changes: Any) -> Path:
    """config.json, model.safetensors of random float32 weights, and a tokenizer of 64 words.

    `scale` is the weights' standard deviation; large ones make greedy output less dull.
    """
    import torch

    directory.mkdir(parents=True, exist_ok=True)
    config = {**LLAMA_CONFIG, **changes}
    generator = torch.Generator().manual_seed(5)
    tensors = []
    for name, shape in _llama_shapes(config):
        values = torch.randn(shape, generator=generator) * scale
        if name.endswith("norm.weight"):
            values = torch.ones(shape)
        tensors.append(RawTensor(name, "F32", tuple(shape), values.numpy().tobytes()))
    write_safetensors(directory / "model.safetensors", tensors)
    (directory / "config.json").write_text(json.dumps(config, indent=2))
    (directory / "tokenizer.json").write_text(json.dumps(_word_tokenizer(config["vocab_size"])))
    return directory


def _llama_shapes(config: Mapping[str, Any]) -> list[tuple[str, tuple[int, ...]]]:
    hidden, wide = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    shapes: list[tuple[str, tuple[int, ...]]] = [
        ("model.embed_tokens.weight", (config["vocab_size"], hidden)),
        ("model.norm.weight", (hidden,)),
    ]
    for layer in range(config["num_hidden_layers"]):
        here = f"model.layers.{layer}"
        shapes += [
            (f"{here}.input_layernorm.weight", (hidden,)),
            (f"{here}.post_attention_layernorm.weight", (hidden,)),
            (f"{here}.self_attn.q_proj.weight", (queries, hidden)),
            (f"{here}.self_attn.k_proj.weight", (keys, hidden)),
            (f"{here}.self_attn.v_proj.weight", (keys, hidden)),
            (f"{here}.self_attn.o_proj.weight", (hidden, queries)),
            (f"{here}.mlp.gate_proj.weight", (wide, hidden)),
            (f"{here}.mlp.up_proj.weight", (wide, hidden)),
            (f"{here}.mlp.down_proj.weight", (hidden, wide)),
        ]
    return shapes


def _word_tokenizer(size: int) -> dict[str, Any]:
    """`tokenizers` JSON: words w0, w1, … split at spaces; ids 0 and 1 are special."""
    special = ["<unk>", "<end>"]
    words = special + [f"w{number}" for number in range(len(special), size)]
    added = [
        {
            "id": number,
            "content": content,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for number, content in enumerate(special)
    ]
    return {
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {
            "type": "WordLevel",
            "vocab": {word: number for number, word in enumerate(words)},
            "unk_token": "<unk>",
        },
    }
