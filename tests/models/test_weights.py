"""The weight table of decoders: every checkpoint tensor has a place, every row a tensor."""

from __future__ import annotations

import pytest

from rtp_core.api import Shard
from rtp_core.models.llama import LlamaFamily

transformers = pytest.importorskip("transformers")

CONFIG = {
    "num_hidden_layers": 3,
    "hidden_size": 48,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 80,
    "vocab_size": 97,
}
VARIANTS = {
    "tied": {"tie_word_embeddings": True},
    "untied": {"tie_word_embeddings": False},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "attention bias": {"attention_bias": True},
    "mlp bias": {"mlp_bias": True},
}


def tables(changes):
    config = transformers.LlamaConfig(**CONFIG, **changes)
    family = LlamaFamily()
    return config, family.weights(family.spec(config.to_dict(), "bfloat16", "x"))


@pytest.mark.parametrize("name", VARIANTS)
def test_sources_are_the_tensors_of_hugging_face_with_their_shapes(name):
    config, table = tables(VARIANTS[name])
    state = transformers.LlamaForCausalLM(config).state_dict()
    if config.tie_word_embeddings:
        del state["lm_head.weight"]
    parameters = {parameter.name: parameter for parameter in table.parameters}
    assert {rule.source for rule in table.rules} == set(state)
    assert len(table.rules) == len(state)
    for rule in table.rules:
        wanted = (rule.num_rows, *parameters[rule.destination].shape[1:])
        assert tuple(state[rule.source].shape) == wanted, rule.source


@pytest.mark.parametrize("name", VARIANTS)
def test_every_row_of_every_parameter_is_filled_once(name):
    _, table = tables(VARIANTS[name])
    rows = {parameter.name: [0] * parameter.shape[0] for parameter in table.parameters}
    assert len(rows) == len(table.parameters)
    for rule in table.rules:
        for row in range(rule.row_offset, rule.row_offset + rule.num_rows):
            rows[rule.destination][row] += 1
    assert all(count == 1 for filled in rows.values() for count in filled)


def test_fused_parts_stand_in_the_order_the_operations_expect():
    _, table = tables({"attention_bias": True})
    for name, parts in (("qkv", "qkv"), ("qkv_bias", "qkv"), ("gate_up", ("gate", "up"))):
        rules = [rule for rule in table.rules if rule.destination == f"layers.1.{name}"]
        rules.sort(key=lambda rule: rule.row_offset)
        found = [rule.source.split(".")[-2].removesuffix("_proj") for rule in rules]
        assert found == list(parts)


def test_every_parameter_has_the_run_dtype_and_a_shard_rule():
    _, table = tables({"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False})
    assert {parameter.dtype for parameter in table.parameters} == {"bfloat16"}
    shards = {parameter.name.split(".")[-1]: parameter.shard for parameter in table.parameters}
    assert shards == {
        "embed": Shard.VOCABULARY,
        "head": Shard.VOCABULARY,
        "qkv": Shard.KV_HEADS,
        "qkv_bias": Shard.KV_HEADS,
        "o": Shard.COLUMNS,
        "o_bias": Shard.REPLICATED,
        "gate_up": Shard.ROWS,
        "gate_up_bias": Shard.ROWS,
        "down": Shard.COLUMNS,
        "down_bias": Shard.REPLICATED,
        "norm": Shard.REPLICATED,
        "attention_norm": Shard.REPLICATED,
        "mlp_norm": Shard.REPLICATED,
    }


def test_cached_rotary_frequencies_are_ignored():
    _, table = tables({})
    assert "model.layers.0.self_attn.rotary_emb.inv_freq".endswith(table.ignored)
