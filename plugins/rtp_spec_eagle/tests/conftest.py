"""Models, heads for them, and the plugin itself where only its sources are there."""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

PLUGIN = Path(__file__).parents[1]
ROOT = PLUGIN.parents[1]

_spec = importlib.util.spec_from_file_location("rtp_models", ROOT / "tests" / "conftest.py")
_models = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_models)
tiny_hf_model, save_model = _models.tiny_hf_model, _models.save_model
tiny_model, demo_model = _models.tiny_model, _models.demo_model

HIDDEN, HEADS, KV_HEADS, DIM, WIDE, VOCAB = 48, 4, 2, 16, 64, 259
"""Of the tiny model, but for heads and width, which a head chooses for itself."""


def pytest_configure():
    """A checkout that was not installed gets what pip would write."""
    if any(entry.name == "spec_eagle" for entry in entry_points(group="rtp.plugins")):
        return
    site = Path(tempfile.mkdtemp())
    folder = site / "rtp_spec_eagle-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: rtp-spec-eagle\nVersion: 0.1.0\n"
    )
    (folder / "entry_points.txt").write_text("[rtp.plugins]\nspec_eagle = rtp_spec_eagle.plugin\n")
    sys.path[:0] = [str(site), str(PLUGIN)]


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


@pytest.fixture(scope="session")
def tiny_head(tmp_path_factory) -> Path:
    """A random EAGLE-3 head for the tiny model."""
    return write_head(tmp_path_factory.mktemp("head"), config_of(), tensors_of())
