"""A head's matrices in the forms that operations of this machine read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from rtp_core.api import StoredTensors
from rtp_kernels.linear_weight import GROUP, LinearWeight, quantize
from rtp_kernels.pack import pack_for_few_rows
from rtp_spec_eagle.description import Description
from rtp_spec_eagle.names import Names

Weights = Mapping[str, Any]
"""Matrices by name (fc, qkv, qkv_x, qkv_h, o, gate_up, down, head), norms and biases."""


def read_weights(files: StoredTensors, head: Description, dtype: str, device: str) -> Weights:
    """Tensors in `dtype`: gate before up, queries before keys before values."""
    names = Names(files.tensors)

    def read(name: str) -> torch.Tensor:
        return files.read(name).to(device=device, dtype=getattr(torch, dtype))

    def stacked(*parts: str) -> torch.Tensor:
        return torch.cat([read(names.layer(part)) for part in parts])

    qkv = stacked(*(f"self_attn.{one}_proj.weight" for one in "qkv"))
    made = {
        "fc": read("fc.weight"),
        "o": read(names.layer("self_attn.o_proj.weight")),
        "gate_up": stacked("mlp.gate_proj.weight", "mlp.up_proj.weight"),
        "down": read(names.layer("mlp.down_proj.weight")),
        "post_norm": read(names.layer("post_attention_layernorm.weight")),
    }
    if head.version == 3:
        width = head.hidden_size
        made["qkv_x"], made["qkv_h"] = qkv[:, :width].contiguous(), qkv[:, width:].contiguous()
        made["input_norm"] = read(names.layer("input_layernorm.weight"))
        made["hidden_norm"] = read(names.layer("hidden_norm.weight"))
        made["norm"] = read("norm.weight")
    else:
        made["qkv"] = qkv
    optional = {
        "head": "lm_head.weight",
        "embed": "embed_tokens.weight",
        "fc_bias": "fc.bias",
        "fc_input_norm": "input_norm.weight",
        "q_norm": names.layer("self_attn.q_norm.weight"),
        "k_norm": names.layer("self_attn.k_norm.weight"),
    }
    optional |= {f"fc_norm_{i}": names.fc_norm(i) for i in range(len(head.capture_layers))}
    made |= {key: read(name) for key, name in optional.items() if name in files.tensors}
    if names.layer("self_attn.q_proj.bias") in files.tensors:
        made["qkv_bias"] = stacked(*(f"self_attn.{one}_proj.bias" for one in "qkv"))
    return made


MATRICES = ("fc", "qkv", "qkv_x", "qkv_h", "o", "gate_up", "down", "head")


def packed(weights: Weights, dtype: str, bits: int | None) -> Weights:
    """On a CPU: matrices rounded to codes of `bits`, or as they are, read by few rows at once.

    The head decides tokens and keeps 8 bits.
    """
    made: dict[str, Any] = dict(weights)
    linear = [name for name in MATRICES if name in made]
    for name in linear:
        if bits is not None and made[name].shape[1] % GROUP == 0:
            codes = quantize(made[name], 8 if name == "head" else bits)
            made[name] = LinearWeight(codes.dense().to(made[name].dtype), codes)
    plain = [name for name in linear if isinstance(made[name], torch.Tensor)]
    return pack_for_few_rows(made, dtype, plain)
