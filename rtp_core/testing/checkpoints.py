"""Checkpoints made for tests: safetensors files of any layout, and a small configuration."""

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
