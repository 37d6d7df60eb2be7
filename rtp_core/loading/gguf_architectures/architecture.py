"""What tells one GGUF architecture from another, and the names they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rtp_core.loading.gguf_metadata import Metadata

TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
ATTENTION = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
NORMED_HEADS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
GATED = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
PLAIN = {**ATTENTION, **GATED, "ffn_norm": "post_attention_layernorm"}
"""A layer of Llama."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """`layer`: GGUF part -> Hugging Face part; a ``{}`` in it stands for an expert's number,
    and the tensor holds all experts one after the other.

    `describe` gives the entries of config.json that only this architecture has, first of all
    its name; `keys` are the metadata it reads for that. With `interleaved`, the converter
    reordered the rows of q and k so that the two halves of a rotary pair are neighbours.
    `norm_offset` was added to the weights of all norms.
    """

    name: str
    layer: Mapping[str, str]
    describe: Callable[[Metadata], Mapping[str, Any]]
    keys: frozenset[str] = frozenset()
    interleaved: bool = False
    norm_offset: float = 0.0
