"""What configurations say: refusals that name the key, defaults, windows, weight tables."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rtp_core.errors import ModelError

sys.path.insert(0, str(Path(__file__).parent))
from paging import family_of

PLAIN = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 99,
    "max_position_embeddings": 512,
}
SHORT = {
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 100,
}
GEMMA3 = {**PLAIN, "sliding_window": 8, "sliding_window_pattern": 3}
EXPERTS = {**PLAIN, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
FULL, SLIDING = "full_attention", "sliding_attention"


def spec_of(name, config, dtype="float32", **changes):
    family = family_of(f"{name}ForCausalLM")
    return family.spec({**config, **changes}, dtype, "print")


def windows_of(spec):
    found = [None] * spec.num_layers
    for group in spec.kv_groups:
        for layer in group.layers:
            found[layer] = group.sliding_window
    return found


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("Llama", {"hidden_size": None}, "hidden_size is None, expected a whole number"),
        ("Llama", {"vocab_size": True}, "vocab_size is True"),
        ("Llama", {"intermediate_size": 80.5}, "intermediate_size is 80.5"),
        ("Llama", {"num_hidden_layers": 10**6}, "num_hidden_layers is 1000000, .* to 4096"),
        ("Llama", {"num_key_value_heads": 4}, "num_key_value_heads is 4, .*divisor .* 6"),
        ("Llama", {"num_attention_heads": 5, "num_key_value_heads": 5}, "hidden_size is 48, .* 5"),
        ("Llama", {"hidden_act": "relu"}, "hidden_act is 'relu', expected one of silu"),
        ("Llama", {"rms_norm_eps": 0}, "rms_norm_eps is 0"),
        ("Llama", {"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes', .*true or false"),
        ("Llama", {"sliding_window": 64}, "sliding_window is 64, .*not supported"),
        ("SmolLM3", {"no_rope_layers": [1, 0]}, "no_rope_layers is 'a list of 2', expected 4"),
        ("SmolLM3", {"no_rope_layers": [1, 0, 2, 1]}, "no_rope_layers is 2, expected 0 or 1"),
        ("SmolLM3", {"no_rope_layers": 4}, "no_rope_layers is 4, expected a list"),
        ("Mistral", {"sliding_window": 0}, "sliding_window is 0"),
        ("Mistral", {"layer_types": [FULL, SLIDING] * 2}, "layer_types .*for all layers"),
        ("Qwen2", {"layer_types": [FULL, "linear_attention"] * 2}, "is 'linear_attention'"),
        ("Qwen2", {"layer_types": [FULL, SLIDING] * 2}, "where sliding_window is off"),
        ("Qwen3", {"use_sliding_window": 1}, "use_sliding_window is 1, expected true"),
        ("Qwen3", {"head_dim": 0}, "head_dim is 0"),
        (
            "Qwen2",
            {"use_sliding_window": True, "max_window_layers": "all"},
            "max_window_layers is 'all'",
        ),
        ("Qwen3Moe", {**EXPERTS, "num_experts_per_tok": 5}, "num_experts_per_tok is 5, .* 4"),
        ("Qwen3Moe", {**EXPERTS, "decoder_sparse_step": 0}, "decoder_sparse_step is 0"),
        ("Qwen3Moe", {**EXPERTS, "mlp_only_layers": 3}, "mlp_only_layers is 3, expected a list"),
        ("Gemma2", {"hidden_activation": "gelu"}, "hidden_act.* is 'gelu'"),
        ("Gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("Gemma2", {"attn_logit_softcapping": -1}, "attn_logit_softcapping is -1"),
        ("Gemma2", {"sliding_window": None}, "where sliding_window is off"),
        ("Gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50.0"),
        ("Gemma3", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar is 0"),
        ("Gemma3", {"rope_scaling": {"rope_type": "spiral"}}, "spiral"),
    ],
)
def test_a_configuration_that_cannot_be_honoured_is_refused_by_key(name, changes, words):
    with pytest.raises(ModelError, match=words):
        spec_of(name, PLAIN, **changes)


class TestLlama:
    """A Llama configuration is understood in every spelling, or refused by key."""

    def spec(self, dtype="float32", **changes):
        return family_of("LlamaForCausalLM").spec({**SHORT, **changes}, dtype, "print")

    def test_a_short_configuration_gets_the_defaults_of_hugging_face(self):
        found = self.spec()
        assert (found.head_dim, found.num_kv_heads, found.max_model_len) == (16, 2, 2048)
        assert (found.norm_eps, found.rope.theta, found.rope.rotary_dim) == (1e-6, 10000.0, 16)
        assert not any((found.tied_head, found.attention_bias, found.mlp_bias))
        assert self.spec(num_key_value_heads=None).num_kv_heads == 4

    def test_head_dim_need_not_be_hidden_size_by_heads(self):
        assert self.spec(head_dim=128).head_dim == 128
        assert self.spec(head_dim=None).head_dim == 16

    def test_one_group_of_all_layers_in_the_run_dtype(self):
        (group,) = self.spec("bfloat16").kv_groups
        assert group.layers == (0, 1)
        assert {(one.num_heads, one.head_dim, one.dtype) for one in group.planes} == {
            (2, 16, "bfloat16")
        }
        assert group.sliding_window is None

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            *((key, None) for key in SHORT if key != "num_key_value_heads"),
            *((key, value) for key in SHORT for value in (0, -1, 2.0, "8", [8], True, 2**40)),
            ("num_key_value_heads", 3),
            ("num_key_value_heads", 8),
            ("head_dim", 15),
            ("head_dim", "16"),
            ("hidden_act", "gelu"),
            ("hidden_act", ["silu"]),
            ("sliding_window", 4096),
            ("max_position_embeddings", "long"),
            ("rms_norm_eps", 0),
            ("rms_norm_eps", "small"),
            ("rope_theta", -1.0),
            ("rope_theta", 10**400),
            ("rope_scaling", ["llama3"]),
            ("rope_parameters", {"full_attention": {"rope_type": "default"}}),
        ],
    )
    def test_what_cannot_be_honoured_is_named(self, key, value):
        with pytest.raises(ModelError, match=key):
            self.spec(**{key: value})

    def test_a_window_that_is_switched_off_is_no_window(self):
        assert (
            self.spec(sliding_window=4096, use_sliding_window=False).kv_groups[0].sliding_window
            is None
        )
        assert self.spec(sliding_window=None).kv_groups[0].sliding_window is None


class TestDefaults:
    """Keys that published configurations leave out mean what transformers takes them to mean."""

    @pytest.mark.parametrize("name", ["Llama", "Mistral", "Qwen2", "Qwen3", "Qwen3Moe"])
    def test_heads_are_not_tied(self, name):
        assert not spec_of(name, {**EXPERTS, "num_key_value_heads": 6}).tied_head

    @pytest.mark.parametrize("name", ["SmolLM3", "Gemma2", "Gemma3"])
    def test_heads_are_tied(self, name):
        assert spec_of(name, PLAIN).tied_head
        assert not spec_of(name, PLAIN, tie_word_embeddings=False).tied_head

    @pytest.mark.parametrize(
        ("name", "size"), [("Llama", 8), ("Mistral", 8), ("Qwen3", 128), ("Gemma3", 256)]
    )
    def test_head_size(self, name, size):
        assert spec_of(name, PLAIN).head_dim == size

    def test_null_is_not_replaced_by_a_default(self):
        assert windows_of(spec_of("Mistral", PLAIN)) == [4096] * 4
        assert windows_of(spec_of("Mistral", PLAIN, sliding_window=None)) == [None] * 4
        assert spec_of("Gemma2", PLAIN).logits_softcap == 30.0
        assert spec_of("Gemma2", PLAIN, final_logit_softcapping=None).logits_softcap is None

    def test_rotary_bases(self):
        assert spec_of("SmolLM3", PLAIN).rope.theta == 2e6
        assert spec_of("Gemma2", PLAIN).rope.theta == 1e4
        spec = spec_of("Gemma3", GEMMA3)
        assert [rope.theta for rope in spec.layer_ropes] == [1e4, 1e4, 1e6, 1e4]

    def test_gemma3_of_older_files(self):
        old = {
            "rope_theta": 5e5,
            "rope_local_base_freq": 2e4,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        }
        spec = spec_of("Gemma3", GEMMA3, **old)
        assert [(rope.theta, rope.factor) for rope in spec.layer_ropes[1:3]] == [
            (2e4, 1.0),
            (5e5, 8.0),
        ]

    def test_a_null_section_of_gemma3_is_the_default(self):
        nested = {"full_attention": {"rope_type": "default"}, "sliding_attention": None}
        spec = spec_of("Gemma3", GEMMA3, rope_parameters=nested)
        assert [rope.theta for rope in spec.layer_ropes] == [1e4, 1e4, 1e6, 1e4]


class TestWindows:
    def test_qwen_ignores_a_window_that_is_not_switched_on(self):
        assert windows_of(spec_of("Qwen2", PLAIN, sliding_window=8)) == [None] * 4

    @pytest.mark.parametrize("name", ["Qwen2", "Qwen3"])
    def test_qwen_slides_from_max_window_layers_up(self, name):
        on = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 3}
        assert windows_of(spec_of(name, PLAIN, **on)) == [None, None, None, 8]
        on["max_window_layers"] = 0
        assert windows_of(spec_of(name, PLAIN, **on)) == [8] * 4

    def test_smollm3_slides_where_it_does_not_rotate(self):
        on = {"use_sliding_window": True, "sliding_window": 8}
        assert windows_of(spec_of("SmolLM3", PLAIN, **on)) == [None, None, None, 8]

    def test_gemma_interleaves(self):
        assert windows_of(spec_of("Gemma2", PLAIN, sliding_window=8)) == [8, None, 8, None]
        assert windows_of(spec_of("Gemma3", GEMMA3)) == [8, 8, None, 8]
        given = [FULL, SLIDING, FULL, SLIDING]
        assert windows_of(spec_of("Gemma3", GEMMA3, layer_types=given)) == [None, 8, None, 8]

    def test_each_kind_is_one_group_with_full_attention_first(self):
        groups = spec_of("Gemma3", GEMMA3).kv_groups
        assert [(group.name, group.layers) for group in groups] == [
            ("main", (2,)),
            ("window", (0, 1, 3)),
        ]


def test_the_embedding_scale_is_rounded_to_the_run_dtype():
    config = {**PLAIN, "hidden_size": 3072, "head_dim": 16}
    assert spec_of("Gemma3", config, "bfloat16").embedding_scale == 55.5
    assert spec_of("Gemma3", config).embedding_scale == pytest.approx(3072**0.5)


class TestWeightTables:
    def table(self, name, config=PLAIN, dtype="float32", **changes):
        family = family_of(f"{name}ForCausalLM")
        return family.weights(spec_of(name, config, dtype, **changes))

    def sources(self, table, destination):
        return [rule.source for rule in table.rules if rule.destination == destination]

    def test_biases_are_fused_like_their_weights(self):
        table = self.table("Qwen2")
        weights = self.sources(table, "layers.1.qkv")
        biases = self.sources(table, "layers.1.qkv_bias")
        assert biases == [one.replace(".weight", ".bias") for one in weights]
        assert [one.split(".")[-2] for one in biases] == ["q_proj", "k_proj", "v_proj"]
        assert not self.sources(table, "layers.1.o_bias")

    def test_offset_norms_stay_in_float32(self):
        dtypes = {one.name: one.dtype for one in self.table("Gemma3", dtype="bfloat16").parameters}
        norms = {name: dtype for name, dtype in dtypes.items() if "norm" in name}
        assert len(norms) == 4 * 6 + 1
        assert set(norms.values()) == {"float32"}
        assert dtypes["layers.0.qkv"] == "bfloat16"
        dtypes = {one.name: one.dtype for one in self.table("Qwen3", dtype="bfloat16").parameters}
        assert set(dtypes.values()) == {"bfloat16"}

    def test_experts_have_two_spellings_and_whole_experts_are_sharded(self):
        table = self.table("Qwen3Moe", EXPERTS)
        at = "model.layers.0.mlp.experts"
        assert self.sources(table, "layers.0.expert_gate_up")[:3] == [
            f"{at}.0.gate_proj.weight",
            f"{at}.0.up_proj.weight",
            f"{at}.1.gate_proj.weight",
        ]
        other = {rule.destination: rule for rule in table.alternatives}
        assert other["layers.0.expert_gate_up"].source == f"{at}.gate_up_proj"
        assert other["layers.0.expert_gate_up"].num_rows == 4 * 2 * 24
        assert other["layers.3.expert_down"].num_rows == 4 * 48
        shards = {one.name: one.shard.value for one in table.parameters}
        assert shards["layers.0.expert_down"] == "experts"
        assert shards["layers.0.router"] == "replicated"

    @pytest.mark.parametrize(
        ("changes", "sparse"),
        [
            ({}, {0, 1, 2, 3}),
            ({"mlp_only_layers": [0, 3]}, {1, 2}),
            ({"decoder_sparse_step": 2}, {1, 3}),
            ({"decoder_sparse_step": 2, "mlp_only_layers": [1]}, {3}),
            ({"num_experts": 0}, set()),
        ],
    )
    def test_layers_with_experts(self, changes, sparse):
        table = self.table("Qwen3Moe", {**EXPERTS, **changes})
        names = {one.name for one in table.parameters}
        for layer in range(4):
            assert (f"layers.{layer}.router" in names) == (layer in sparse)
            assert (f"layers.{layer}.gate_up" in names) == (layer not in sparse)
