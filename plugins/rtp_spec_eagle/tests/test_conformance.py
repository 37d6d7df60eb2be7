"""The drafter keeps the contract of its role, with a random head for the suite's small model."""

from __future__ import annotations

import pytest
import torch
from eagle_heads import config_of, write_head

from rtp_core.api import Role
from rtp_core.testing.conformance import check_name, suite
from rtp_spec_eagle.build import build
from rtp_spec_eagle.plugin import EagleOptions

HIDDEN, HEADS, DIM, WIDE, DRAFTS = 32, 4, 8, 48, 40


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    generator = torch.Generator().manual_seed(2)
    shapes = {
        "fc": (HIDDEN, 2 * HIDDEN),
        **{f"midlayer.self_attn.{one}_proj": (HEADS * DIM, 2 * HIDDEN) for one in "qkv"},
        "midlayer.self_attn.o_proj": (HIDDEN, HEADS * DIM),
        "midlayer.mlp.gate_proj": (WIDE, HIDDEN),
        "midlayer.mlp.up_proj": (WIDE, HIDDEN),
        "midlayer.mlp.down_proj": (HIDDEN, WIDE),
        "lm_head": (DRAFTS, HIDDEN),
    }
    tensors = {f"{name}.weight": torch.randn(shape, generator=generator) * 0.2
               for name, shape in shapes.items()}  # fmt: skip
    for name in ("input_layernorm", "hidden_norm", "post_attention_layernorm"):
        tensors[f"midlayer.{name}.weight"] = torch.ones(HIDDEN)
    tensors |= {"norm.weight": torch.ones(HIDDEN), "d2t": torch.zeros(DRAFTS, dtype=torch.int64)}
    config = config_of(
        hidden_size=HIDDEN, intermediate_size=WIDE, num_attention_heads=HEADS,
        num_key_value_heads=HEADS, head_dim=DIM, vocab_size=64, draft_vocab_size=DRAFTS,
        eagle_config={"eagle_aux_hidden_state_layer_ids": [-1, 0]},
    )  # fmt: skip
    return write_head(tmp_path_factory.mktemp("small"), config, tensors)


@pytest.mark.parametrize("check", suite(Role.SPECULATOR), ids=check_name)
def test_conforms(head, check):
    check(lambda context: build(context, EagleOptions(head=str(head))))
