"""GGUF files of every architecture through the whole engine, against Hugging Face."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from rtp_core import LLM, SamplingParams
from rtp_core.errors import ConfigError
from rtp_core.loading.gguf_architectures.registry import ARCHITECTURES
from rtp_kernels.pack import why_not

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parent))
from gguf_models import NAMES, model_for_gguf, write_model
from small_models import FULL, SLIDING, WINDOW, YARN, random_ids

NEW = 16
GREEDY = SamplingParams(temperature=0.0, max_tokens=NEW, ignore_eos=True)
PROMPTS = [random_ids(length, seed=length) for length in (5, WINDOW, 70)]
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
}  # fmt: skip
MINISTRAL = {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0, "beta_fast": 24.0, "beta_slow": 2.0}
GEMMA_ROPES = {
    FULL: {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
    SLIDING: {"rope_type": "default", "rope_theta": 1e4},
}
SIX = [SLIDING] * 5 + [FULL]
PLAIN = [
    ("LlamaForCausalLM", "grouped", {}),
    ("LlamaForCausalLM", "one KV head", {"tie_word_embeddings": True}),
    ("LlamaForCausalLM", "every head", {}),
    ("LlamaForCausalLM", "wide heads", {}),
    ("LlamaForCausalLM", "biases", {}),
    ("LlamaForCausalLM", "grouped", {"rope_parameters": LLAMA3}),
    ("LlamaForCausalLM", "yarn", {}),
    ("LlamaForCausalLM", "yarn", {"rope_parameters": {**YARN, "attention_factor": 1.7}}),
    ("LlamaForCausalLM", "linear", {}),
    ("SmolLM3ForCausalLM", "every fourth", {}),
    ("MistralForCausalLM", "window", {}),
    ("MistralForCausalLM", "no window", {"rope_parameters": MINISTRAL, "head_dim": 16}),
    ("Qwen2ForCausalLM", "biases", {}),
    ("Qwen2ForCausalLM", "tied", {}),
    ("Qwen2ForCausalLM", "biases", {"num_key_value_heads": 1, "rope_parameters": YARN}),
    ("Qwen3ForCausalLM", "normed heads", {"num_key_value_heads": 1}),
    ("Qwen3ForCausalLM", "wide heads, tied", {}),
    ("Qwen3ForCausalLM", "biases, yarn", {}),
    ("Qwen3MoeForCausalLM", "experts", {}),
    ("Qwen3MoeForCausalLM", "experts", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    ("Gemma2ForCausalLM", "limited", {"query_pre_attn_scalar": 16, "tie_word_embeddings": True}),
    ("Gemma2ForCausalLM", "tightly limited", {"query_pre_attn_scalar": 16}),
    ("Gemma3ForCausalLM", "five to one", {"query_pre_attn_scalar": 16}),
    (
        "Gemma3ForCausalLM",
        "linear, one KV head",
        {
            "query_pre_attn_scalar": 16,
            "num_hidden_layers": 6,
            "layer_types": SIX,
            "rope_parameters": GEMMA_ROPES,
            "final_logit_softcapping": 3.0,
        },
    ),
]


def open_llm(path, dtype="float32", max_model_len=128, **settings):
    kv = {"memory": 2**24, "block_size": 16, "watermark": 0.0}
    return LLM(model=str(path), dtype=dtype, max_model_len=max_model_len, kv=kv, **settings)


def ids(results):
    return [list(result.outputs[0].token_ids) for result in results]


def greedy(model, prompt):
    """Hugging Face's own generation."""
    known = torch.tensor([prompt])
    out = model.generate(
        known,
        attention_mask=torch.ones_like(known),
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return out[0, len(prompt) :].tolist()


def check(path, model, **settings):
    expected = [greedy(model, prompt) for prompt in PROMPTS]
    with open_llm(path, **settings) as llm:
        assert ids(llm.generate(PROMPTS, GREEDY)) == expected
        return llm


def test_every_architecture_is_tried():
    assert {NAMES[name] for name, _, _ in PLAIN} | {"llama"} == set(ARCHITECTURES)


@pytest.mark.parametrize(("architecture", "case", "changes"), PLAIN)
def test_greedy_tokens_equal_generate(architecture, case, changes, tmp_path):
    model = model_for_gguf(architecture, case, **changes)
    check(write_model(tmp_path / "model.gguf", model), model)


def test_a_window_in_a_llama_file_is_that_of_mistral(tmp_path):
    model = model_for_gguf("MistralForCausalLM", "window")
    check(write_model(tmp_path / "model.gguf", model, arch="llama"), model)


def test_ministral_is_served_up_to_where_its_queries_are_scaled(tmp_path):
    """The scale is 1 below the original length, so that nothing is missing there."""
    model = model_for_gguf("MistralForCausalLM", "no window", rope_parameters=MINISTRAL)
    path = tmp_path / "model.gguf"
    write_model(path, model, change=lambda writer: writer.add_attn_temperature_scale(0.1))
    assert check(path, model).explain()["model"]["max_model_len"] == 128
    with pytest.raises(ConfigError, match=r"max_model_len: 129 is more than the 128 positions"):
        open_llm(path, max_model_len=129)


def test_gemma_without_a_window_sees_everything(tmp_path):
    scale = {"query_pre_attn_scalar": 16}
    model = model_for_gguf("Gemma3ForCausalLM", "five to one", layer_types=[FULL] * 7, **scale)
    path = tmp_path / "model.gguf"
    write_model(path, model, change=lambda writer: drop(writer, "gemma3.attention.sliding_window"))
    check(path, model)


@pytest.mark.parametrize("pattern", [3, [True, True, False] * 2])
def test_gemma_names_its_sliding_layers(pattern, tmp_path):
    kinds = {"num_hidden_layers": 6, "layer_types": [SLIDING, SLIDING, FULL] * 2}
    scale = {"query_pre_attn_scalar": 16}
    model = model_for_gguf("Gemma3ForCausalLM", "five to one", **kinds, **scale)

    def change(writer):
        key = "gemma3.attention.sliding_window_pattern"
        add = writer.add_array if isinstance(pattern, list) else writer.add_uint32
        add(key, pattern)
        writer.add_float32("gemma3.rope.freq_base_swa", 10000.0)

    check(write_model(tmp_path / "model.gguf", model, change=change), model)


def drop(writer, key):
    for part in writer.kv_data:
        part.pop(key, None)


def test_gemma_scales_its_scores_as_the_file_says(tmp_path):
    """Without the key by head size, but for the one size of 46 or 62 layers."""
    model = model_for_gguf("Gemma3ForCausalLM", "five to one")
    scale = model.config.query_pre_attn_scalar**-0.5
    path = tmp_path / "model.gguf"
    write_model(path, model, change=lambda w: w.add_float32("gemma3.attention.scale", scale))
    check(path, model)


# -- quantized types ------------------------------------------------------------------------

WIDE = {
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_attention_heads": 8,
    "head_dim": 32,
    "initializer_range": 0.05,
}
"""Rows of whole K blocks."""
MIXES = {
    "4 and 8 bits": {"token_embd": "Q8_0", "output": "Q8_0", "": "Q4_0"},
    "Q4_1 and Q5_0": {"token_embd": "Q8_0", "output": "F16", "ffn_down": "Q5_0", "": "Q4_1"},
    "K": {"token_embd": "Q6_K", "output": "Q6_K", "ffn_down": "Q6_K", "attn_v": "Q5_K", "": "Q4_K"},
    "small K": {"token_embd": "Q8_0", "output": "BF16", "ffn_down": "Q3_K", "attn_k": "Q5_1",
                "": "Q2_K"},
}  # fmt: skip
QUANTIZED = [
    ("LlamaForCausalLM", "grouped", "K", {}),
    ("LlamaForCausalLM", "biases", "4 and 8 bits", {}),
    ("SmolLM3ForCausalLM", "every fourth", "Q4_1 and Q5_0", {}),
    ("MistralForCausalLM", "window", "small K", {}),
    ("Qwen2ForCausalLM", "biases", "4 and 8 bits", {}),
    ("Qwen2ForCausalLM", "tied", "K", {"num_key_value_heads": 2}),
    ("Qwen3ForCausalLM", "normed heads", "Q4_1 and Q5_0", {}),
    ("Qwen3MoeForCausalLM", "experts", "K", {"moe_intermediate_size": 256}),
    (
        "Gemma2ForCausalLM",
        "limited",
        "K",
        {"query_pre_attn_scalar": 32, "tie_word_embeddings": True},
    ),
    ("Gemma3ForCausalLM", "five to one", "small K", {"query_pre_attn_scalar": 32}),
]


def types_of(mix):
    return lambda name: next(kind for part, kind in MIXES[mix].items() if part in name)


def quantized_model(path, architecture, case, mix, changes):
    model = model_for_gguf(architecture, case, **{**WIDE, **changes})
    return model, write_model(path / "model.gguf", model, types=types_of(mix))


@pytest.mark.parametrize(("architecture", "case", "mix", "changes"), QUANTIZED)
def test_quantized_types_equal_what_the_package_decodes(architecture, case, mix, changes, tmp_path):
    model, path = quantized_model(tmp_path, architecture, case, mix, changes)
    check(path, model)


@pytest.mark.parametrize("loader", ["mmap", "file_order"])
def test_experts_are_cut_out_of_one_tensor_by_every_loader(loader, tmp_path):
    changes = {"moe_intermediate_size": 256}
    model, path = quantized_model(tmp_path, "Qwen3MoeForCausalLM", "experts", "small K", changes)
    check(path, model, loading={"loader": loader})


CODED = [one for one in QUANTIZED if one[2] in ("4 and 8 bits", "Q4_1 and Q5_0")]


@pytest.mark.skipif(why_not() is not None, reason=f"codes are not multiplied here: {why_not()}")
@pytest.mark.parametrize(("architecture", "case", "mix", "changes"), CODED)
def test_codes_are_kept_and_mean_the_same(architecture, case, mix, changes, tmp_path):
    """In bfloat16, steps with few rows read the file's codes; the dense form is their peer."""
    _, path = quantized_model(tmp_path, architecture, case, mix, changes)
    ask = SamplingParams(temperature=0.0, max_tokens=3, logprobs=20, ignore_eos=True)
    with open_llm(path, "bfloat16") as llm:
        (weights,) = (one for one in llm.explain()["features"] if one["role"] == "weights")
        coded = llm.generate(PROMPTS, ask)
    with open_llm(path, "bfloat16", cpu_weights="bf16") as llm:
        dense = llm.generate(PROMPTS, ask)
    assert "int4" in str(weights)
    for one, other in zip(coded, dense, strict=True):
        assert furthest(one.outputs[0], other.outputs[0]) < 0.1


def furthest(one, other) -> float:
    """Largest distance of log probabilities in the steps up to where the tokens part."""
    distances = []
    for step, peer in zip(one.logprobs, other.logprobs, strict=True):
        known = dict(peer.top)
        distances += [abs(known[token] - value) for token, value in step.top if token in known]
        if step.top[0][0] != peer.top[0][0]:
            break
    assert len(distances) > 10
    return max(distances)
