"""A Llama configuration is understood in every spelling, or refused by key."""

from __future__ import annotations

import pytest
import torch

from rtp_core.errors import ModelError
from rtp_core.models.llama import LlamaFamily
from rtp_core.models.rope import inverse_frequencies, read_rope

CONFIG = {
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 100,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def spec(dtype="float32", **changes):
    return LlamaFamily().spec({**CONFIG, **changes}, dtype, "fingerprint")


def test_a_short_configuration_gets_the_defaults_of_hugging_face():
    found = spec()
    assert (found.head_dim, found.num_kv_heads, found.max_model_len) == (16, 2, 2048)
    assert (found.norm_eps, found.rope.theta, found.rope.rotary_dim) == (1e-6, 10000.0, 16)
    assert not any((found.tied_head, found.attention_bias, found.mlp_bias))
    assert spec(num_key_value_heads=None).num_kv_heads == 4


def test_head_dim_need_not_be_hidden_size_by_heads():
    assert spec(head_dim=128).head_dim == 128
    assert spec(head_dim=None).head_dim == 16


def test_one_group_of_all_layers_in_the_run_dtype():
    (group,) = spec("bfloat16").kv_groups
    assert group.layers == (0, 1)
    assert {(one.num_heads, one.head_dim, one.dtype) for one in group.planes} == {
        (2, 16, "bfloat16")
    }
    assert group.sliding_window is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, None) for key in CONFIG if key != "num_key_value_heads"),
        *((key, value) for key in CONFIG for value in (0, -1, 2.0, "8", [8], True, 2**40)),
        ("num_key_value_heads", 3),
        ("num_key_value_heads", 8),
        ("head_dim", 15),
        ("head_dim", "16"),
        ("hidden_act", "gelu"),
        ("hidden_act", ["silu"]),
        ("sliding_window", 4096),
        ("quantization_config", {"quant_method": "awq"}),
        ("max_position_embeddings", "long"),
        ("rms_norm_eps", 0),
        ("rms_norm_eps", "small"),
        ("rope_theta", -1.0),
        ("rope_theta", 10**400),
        ("rope_scaling", ["llama3"]),
        ("rope_parameters", {"full_attention": {"rope_type": "default"}}),
    ],
)
def test_what_cannot_be_honoured_is_named(key, value):
    with pytest.raises(ModelError, match=key):
        spec(**{key: value})


def test_a_window_that_is_switched_off_is_no_window():
    assert spec(sliding_window=4096, use_sliding_window=False).kv_groups[0].sliding_window is None
    assert spec(sliding_window=None).kv_groups[0].sliding_window is None


class TestRope:
    @pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn", "longrope", "spiral", ["x"], 3])
    @pytest.mark.parametrize("key", ["rope_type", "type"])
    @pytest.mark.parametrize("section", ["rope_scaling", "rope_parameters"])
    def test_an_unknown_kind_is_never_the_default_in_silence(self, section, key, kind):
        with pytest.raises(ModelError, match=r"rope_type .* is not supported.*default, llama3"):
            read_rope({section: {key: kind, "factor": 2.0}}, 64)

    @pytest.mark.parametrize("missing", [key for key in LLAMA3 if key != "rope_type"])
    def test_llama3_needs_all_its_numbers(self, missing):
        section = {key: value for key, value in LLAMA3.items() if key != missing}
        with pytest.raises(ModelError, match=missing):
            read_rope({"rope_scaling": section}, 64)

    def test_llama3_bounds_in_the_wrong_order(self):
        with pytest.raises(ModelError, match=r"low_freq_factor 4\.0 is not below"):
            read_rope({"rope_scaling": {**LLAMA3, "low_freq_factor": 4.0}}, 64)

    def test_old_and_new_spelling_mean_the_same(self):
        old = read_rope({"rope_theta": 500000.0, "rope_scaling": LLAMA3}, 64)
        new = read_rope({"rope_parameters": {**LLAMA3, "rope_theta": 500000.0}}, 64)
        assert old == new
        assert (new.kind, new.factor, new.original_max_position) == ("llama3", 8.0, 8192)

    def test_null_is_as_good_as_nothing(self):
        config = {"rope_theta": 5e5, "rope_scaling": None, "rope_parameters": {"rope_theta": None}}
        assert read_rope(config, 64) == read_rope({"rope_theta": 5e5}, 64)

    @pytest.mark.parametrize("where", ["top", "section"])
    def test_partial_rotation(self, where):
        share = {"partial_rotary_factor": 0.5}
        config = share if where == "top" else {"rope_parameters": share}
        assert read_rope(config, 64).rotary_dim == 32
        assert len(inverse_frequencies(read_rope(config, 64))) == 16

    @pytest.mark.parametrize("share", [2.0, 0.01, 0.3])
    def test_impossible_partial_rotation(self, share):
        with pytest.raises(ModelError, match="of head_dim 64 cannot be rotated"):
            read_rope({"partial_rotary_factor": share}, 64)

    @pytest.mark.parametrize(
        ("head_dim", "theta", "changes"),
        [
            (64, 10000.0, None),
            (128, 500000.0, None),
            (128, 500000.0, {}),
            (64, 500000.0, {"factor": 32.0}),
            (80, 10000.0, {"low_freq_factor": 2.0, "high_freq_factor": 16.0}),
        ],
    )
    def test_frequencies_equal_transformers(self, head_dim, theta, changes):
        transformers = pytest.importorskip("transformers")
        from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

        section = {"rope_type": "default"} if changes is None else {**LLAMA3, **changes}
        config = transformers.LlamaConfig(
            **CONFIG, head_dim=head_dim, rope_parameters={**section, "rope_theta": theta}
        )
        expected = LlamaRotaryEmbedding(config).inv_freq
        found = inverse_frequencies(read_rope(config.to_dict(), head_dim))
        torch.testing.assert_close(found, expected, atol=0, rtol=1e-6)
