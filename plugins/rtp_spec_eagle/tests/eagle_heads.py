"""Random heads for the tiny model, in any layout."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

HIDDEN, HEADS, KV_HEADS, DIM, WIDE, VOCAB = 48, 4, 2, 16, 64, 259
"""Of the tiny model, but for heads and width, which a head chooses for itself."""


def config_of(**changes) -> dict:
    """A head for the tiny model, as SafeAILab writes it."""
    return {
        "architectures": ["LlamaForCausalLMEagle3"],
        "hidden_size": HIDDEN,
        "intermediate_size": WIDE,
        "num_hidden_layers": 1,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": DIM,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "vocab_size": VOCAB,
        "draft_vocab_size": 128,
        "eagle_config": {"eagle_aux_hidden_state_layer_ids": [0, 1]},
    } | changes


def tensors_of(
    states: int = 2, draft_vocab: int = 128, layer: str = "midlayer."
) -> dict[str, torch.Tensor]:
    """Random ones that fit `config_of`."""
    generator = torch.Generator().manual_seed(5)

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator) * columns**-0.5

    shapes = {
        "fc": (HIDDEN, states * HIDDEN),
        f"{layer}self_attn.q_proj": (HEADS * DIM, 2 * HIDDEN),
        f"{layer}self_attn.k_proj": (KV_HEADS * DIM, 2 * HIDDEN),
        f"{layer}self_attn.v_proj": (KV_HEADS * DIM, 2 * HIDDEN),
        f"{layer}self_attn.o_proj": (HIDDEN, HEADS * DIM),
        f"{layer}mlp.gate_proj": (WIDE, HIDDEN),
        f"{layer}mlp.up_proj": (WIDE, HIDDEN),
        f"{layer}mlp.down_proj": (HIDDEN, WIDE),
        "lm_head": (draft_vocab, HIDDEN),
    }
    made = {f"{name}.weight": matrix(*shape) for name, shape in shapes.items()}
    norms = ("input_layernorm", "hidden_norm", "post_attention_layernorm")
    for name in (*(layer + norm for norm in norms), "norm"):
        made[f"{name}.weight"] = torch.rand(HIDDEN, generator=generator) + 0.5
    made["d2t"] = torch.arange(draft_vocab)  # every second token
    made["t2d"] = torch.zeros(VOCAB, dtype=torch.bool)
    return made


def write_head(folder: Path, config: dict, tensors: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        {name: one.contiguous() for name, one in tensors.items()}, folder / "model.safetensors"
    )
    return folder
