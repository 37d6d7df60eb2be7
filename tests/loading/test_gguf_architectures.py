"""What GGUF files of each architecture say, and files that lie."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
pytest.importorskip("transformers")
from gguf_models import CONTROL, END, NAMES, VOCABULARY, model_for_gguf, write_model
from small_models import EXPERTS, FULL, SLIDING, YARN

from rtp_core.config.read import load_config
from rtp_core.engine.explain import explain_prepared
from rtp_core.engine.prepare import prepare
from rtp_core.errors import ModelError, RtpError, WeightLoadError
from rtp_core.loading.checkpoint import Checkpoint, open_checkpoint
from rtp_core.loading.gguf import read_gguf
from rtp_core.loading.gguf_architectures.registry import ARCHITECTURES
from rtp_core.loading.gguf_honoured import _READ, _USUAL
from rtp_core.loading.gguf_names import hugging_face_config, hugging_face_tensors
from rtp_core.loading.plan import plan_weights
from rtp_core.models.plugin import FAMILIES

CASES = {
    "llama": ("LlamaForCausalLM", "grouped", {}),
    "mistral3": ("MistralForCausalLM", "no window", {}),
    "smollm3": ("SmolLM3ForCausalLM", "every fourth", {}),
    "qwen2": ("Qwen2ForCausalLM", "biases", {}),
    "qwen3": ("Qwen3ForCausalLM", "normed heads", {}),
    "qwen3moe": ("Qwen3MoeForCausalLM", "experts", {}),
    "gemma2": ("Gemma2ForCausalLM", "limited", {"tie_word_embeddings": True}),
    "gemma3": ("Gemma3ForCausalLM", "five to one", {"num_hidden_layers": 2}),
}


def write(path, arch, change=None, **changes):
    architecture, case, own = CASES[arch]
    model = model_for_gguf(architecture, case, **{**own, **changes})
    return write_model(path / f"{arch}.gguf", model, arch=arch, change=change)


def put(key, value):
    """Set a metadata key, or take it out with None."""

    def change(writer):
        for part in writer.kv_data:
            part.pop(key, None)
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, list):
            writer.add_array(key, value)
        elif value is not None:
            writer.add_int32(key, value)

    return change


def planned(path):
    """All that happens before weights are read, and the report on it."""
    return explain_prepared(prepare(load_config(overrides={"model": str(path)})))


def test_there_is_a_case_for_every_architecture():
    assert set(CASES) == set(ARCHITECTURES)


@pytest.mark.parametrize("arch", CASES)
def test_explain_names_the_model(tmp_path, arch):
    report = planned(write(tmp_path, arch))
    assert NAMES[report["model"]["architecture"]] == arch or arch == "llama"
    assert report["memory"]["weights_bytes"] > 0


@pytest.mark.parametrize("arch", CASES)
def test_every_key_that_is_needed_is_missed_by_name(tmp_path, arch):
    for key in ("block_count", "embedding_length", "context_length", "attention.head_count",
                "attention.layer_norm_rms_epsilon"):  # fmt: skip
        path = write(tmp_path, arch, put(f"{arch}.{key}", None))
        with pytest.raises(ModelError, match=rf"{arch}\.gguf: GGUF metadata lacks {arch}\.{key}"):
            open_checkpoint(path)


LIES = [
    ("block_count", 1, "unexpected: model.layers.1"),
    ("block_count", 9, r"missing: model\.layers\.\d"),
    ("block_count", 2**31 - 1, "block_count is 2147483647, expected .* up to 4096"),
    ("embedding_length", 96, "the configuration says|expected the head size"),
    ("attention.head_count_kv", 6, "the configuration says|is not known"),
    ("attention.head_count_kv", 5, "num_key_value_heads is 5"),
    ("attention.head_count", 12, "the configuration says|expected"),
]


@pytest.mark.parametrize("arch", CASES)
@pytest.mark.parametrize(("key", "value", "message"), LIES)
def test_counts_that_the_tensors_contradict(tmp_path, arch, key, value, message):
    with pytest.raises(ModelError, match=message):
        planned(write(tmp_path, arch, put(f"{arch}.{key}", value)))


@pytest.mark.parametrize(
    ("arch", "key", "value", "message"),
    [
        ("qwen2", "attention.sliding_window", 64, "sliding_window is 64, expected 0"),
        ("qwen3", "expert_count", 8, "expert_count is 8, expected 0"),
        ("qwen3", "nextn_predict_layers", 1, "nextn_predict_layers is 1, expected 0"),
        ("qwen3moe", "expert_count", 5, r"ffn_\w+_exps.* \[6, .*expert_count 5"),
        ("qwen3moe", "expert_count", None, "lacks qwen3moe.expert_count"),
        ("qwen3moe", "expert_count", 2**31 - 1, "expert_count is 2147483647, expected .* 65536"),
        ("qwen3moe", "expert_used_count", 7, "num_experts_per_tok is 7, expected at most"),
        ("qwen3moe", "expert_gating_func", 2, "expert_gating_func is 2, expected 0 or 1"),
        ("qwen3moe", "expert_weights_norm", 3, "expert_weights_norm is 3, expected true or"),
        ("qwen3moe", "expert_shared_count", 1, "expert_shared_count is 1, expected 0"),
        ("gemma2", "attn_logit_softcapping", -1.0, "attn_logit_softcapping is -1.0, expected a p"),
        ("gemma3", "attn_logit_softcapping", 50.0, "attn_logit_softcapping is 50.0, expected 0"),
        ("gemma3", "attention.sliding_window", -1, "sliding_window is -1, expected a positive"),
        ("gemma3", "attention.sliding_window_pattern", [True], "expected a number, or 2 booleans"),
        ("gemma3", "attention.sliding_window_pattern", 0, "sliding_window_pattern is 0"),
        ("gemma3", "attention.key_length_swa", 8, "key_length_swa is not known"),
        ("mistral3", "attention.temperature_length", 8, "temperature_length is not known"),
        ("llama", "attention.temperature_scale", 0.1, "temperature_scale is 0.1.*, expected 0"),
        ("smollm3", "rope.scaling.yarn_ext_factor", 0.5, "yarn_ext_factor is 0.5, expected 1"),
        ("qwen2", "rope.scaling.factor", -2.0, "factor is -2.0, expected a positive number"),
        ("qwen2", "rope.scaling.type", "su", "scaling.type is 'su', expected none, linear or"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(tmp_path, arch, key, value, message):
    with pytest.raises(RtpError, match=message):
        planned(write(tmp_path, arch, put(f"{arch}.{key}", value)))


@pytest.mark.parametrize(("arch", "name"), [
    ("qwen2", "blk.0.attn_q_norm.weight"),
    ("qwen3", "blk.0.ffn_gate_inp.weight"),
    ("qwen3moe", "blk.0.ffn_gate_shexp.weight"),
    ("llama", "blk.0.attn_qkv.weight"),
    ("gemma3", "v.patch_embd.weight"),
])  # fmt: skip
def test_tensors_of_another_architecture_are_named(tmp_path, arch, name):
    path = write(tmp_path, arch, lambda w: w.add_tensor(name, np.zeros(32, np.float32)))
    with pytest.raises(ModelError, match=rf"{arch}\.gguf: GGUF tensor {name} is not known for"):
        open_checkpoint(path)


@pytest.mark.parametrize(("called", "missing"), [("qwen2", "bias"), ("qwen3", "norm")])
def test_a_file_under_another_name_lacks_its_tensors(tmp_path, called, missing):
    path = write_model(tmp_path / "m.gguf", model_for_gguf(*CASES["llama"][:2]), arch=called)
    with pytest.raises(WeightLoadError, match=rf"missing: .*{missing}"):
        planned(path)


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.sampled_from([2**31, 2**63, -(2**63), 1e-300, 1e300, 5e-324, math.inf, math.nan, 0.0]),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.one_of(st.booleans(), st.integers(0, 3)), max_size=7),
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The files as they are read."""
    folder = tmp_path_factory.mktemp("sound")
    return {arch: read_gguf(write(folder, arch)) for arch in CASES}


@pytest.mark.parametrize("arch", CASES)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_value_is_honoured_or_refused(sound, arch, data):
    """Never another error: whatever stands under the keys of a model and of its vocabulary."""
    file = sound[arch]
    known = {key for key in file.metadata if not key.startswith(("general.", "GGUF."))}
    known |= {f"{arch}.{key}" for key in (*_READ, *_USUAL, *ARCHITECTURES[arch].keys)}
    known |= {f"tokenizer.ggml.{role}_token_id" for role in ("bos", "eot", "eom")}
    odd = data.draw(st.dictionaries(st.sampled_from(sorted(known)), ODD, min_size=1, max_size=3))
    values = {**file.metadata, **odd}
    values = {key: value for key, value in values.items() if value is not None}
    with contextlib.suppress(RtpError):
        plan_of(dataclasses.replace(file, metadata=values))


def plan_of(file):
    """As the engine does it, without a file for the metadata."""
    found = hugging_face_config(file)
    module, name = FAMILIES[found["architectures"][0]].split(":")
    family = getattr(import_module(f"rtp_core.models.{module}"), name)()
    spec = family.spec(found, "bfloat16", "x")
    tensors = hugging_face_tensors(file)
    return plan_weights(
        family.weights(spec), Checkpoint("gguf", file.path, found, {}, tensors, "x", file.metadata)
    )


def test_sound_files_are_planned(sound):
    for file in sound.values():
        assert plan_of(file).placements


def config(tmp_path, arch, change=None, **changes):
    return open_checkpoint(write(tmp_path, arch, change, **changes)).config


@pytest.mark.parametrize(("arch", "layers"), [("gemma2", 46), ("gemma3", 62)])
def test_the_largest_gemma_scales_scores_by_hidden_size(tmp_path, arch, layers):
    """48 hidden, 6 heads of 16."""
    found = config(tmp_path, arch, put(f"{arch}.block_count", layers))
    assert found["query_pre_attn_scalar"] == 8
    found = config(tmp_path, arch, put(f"{arch}.block_count", layers - 1))
    assert found["query_pre_attn_scalar"] == 16


def test_limits_and_windows_left_out_of_gemma_2_are_its_usual_ones(tmp_path):
    def change(writer):
        for key in ("attn_logit_softcapping", "final_logit_softcapping",
                    "attention.sliding_window"):  # fmt: skip
            put(f"gemma2.{key}", None)(writer)

    found = config(tmp_path, "gemma2", change)
    assert (found["attn_logit_softcapping"], found["final_logit_softcapping"]) == (50.0, 30.0)
    assert (found["sliding_window"], found["layer_types"][:2]) == (4096, [SLIDING, FULL])


def test_experts_without_a_width_share_that_of_a_dense_layer(tmp_path):
    found = config(tmp_path, "qwen3moe", put("qwen3moe.expert_feed_forward_length", None))
    assert found["moe_intermediate_size"] == 80 // EXPERTS["num_experts_per_tok"]
    assert found["norm_topk_prob"] is True


def test_experts_alone_need_no_dense_width(tmp_path):
    found = config(tmp_path, "qwen3moe", put("qwen3moe.feed_forward_length", None))
    assert found["moe_intermediate_size"] == EXPERTS["moe_intermediate_size"]
    planned(tmp_path / "qwen3moe.gguf")


@pytest.mark.parametrize("name", ["rope.scaling.factor", "rope.scale_linear"])
def test_a_factor_without_a_type_is_linear(tmp_path, name):
    rope = config(tmp_path, "qwen2", put(f"qwen2.{name}", 4.0))["rope_parameters"]
    assert (rope["rope_type"], rope["factor"]) == ("linear", 4.0)
    rope = config(tmp_path, "qwen2", put(f"qwen2.{name}", 0.0))["rope_parameters"]
    assert rope["rope_type"] == "default"


@pytest.mark.parametrize("turned", [2, 4, 6])
def test_a_part_of_the_head_rotates(tmp_path, turned):
    path = write(tmp_path, "qwen2", put("qwen2.rope.dimension_count", turned))
    spec = prepare(load_config(overrides={"model": str(path)})).spec
    assert spec.rope.rotary_dim == turned


def test_yarn_and_divisors_together_are_refused(tmp_path):
    divisors = np.ones(4, np.float32)
    changes = {"rope_parameters": YARN}
    path = write(
        tmp_path, "llama", lambda w: w.add_tensor("rope_freqs.weight", divisors), **changes
    )
    with pytest.raises(ModelError, match=r"'yarn', expected none beside the tensor rope_freqs"):
        open_checkpoint(path)


def test_divisors_of_another_width_are_refused(tmp_path):
    divisors = np.ones(5, np.float32)
    path = write(tmp_path, "llama", lambda w: w.add_tensor("rope_freqs.weight", divisors))
    with pytest.raises(ModelError, match=r"rope_freqs\.weight is F32 \[5\], expected F32 \[4\]"):
        open_checkpoint(path)


class TestEnds:
    def test_turn_ends_join_the_stop_ids(self, tmp_path):
        def change(writer):
            put("tokenizer.ggml.eos_token_id", 7)(writer)
            writer.add_eot_token_id(9)
            put("tokenizer.ggml.eom_token_id", 11)(writer)

        control = [VOCABULARY - len(CONTROL) + 1, VOCABULARY - 1]  # im_end, endoftext
        assert config(tmp_path, "qwen3", change)["eos_token_id"] == [7, 9, 11, *control]
        assert END in control

    def test_user_defined_ends_count_but_ordinary_text_does_not(self, tmp_path):
        kinds = put("tokenizer.ggml.token_type", [1] * 257 + [3, 4, 1])
        assert config(tmp_path, "qwen3", kinds)["eos_token_id"] == [END]

    def test_a_turn_end_outside_the_vocabulary(self, tmp_path):
        with pytest.raises(ModelError, match=r"eot_token_id is 999, expected an id below 260"):
            config(tmp_path, "qwen3", lambda writer: writer.add_eot_token_id(999))
