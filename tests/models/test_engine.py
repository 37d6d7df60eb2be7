"""Native families through the whole engine, from a saved directory, against Hugging Face."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rtp_core import LLM, SamplingParams

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parent))
from small_models import WINDOW, random_ids, random_model

NEW = 20
GREEDY = SamplingParams(temperature=0.0, max_tokens=NEW, ignore_eos=True)
PICKS = [
    ("LlamaForCausalLM", "llama3"),
    ("SmolLM3ForCausalLM", "windows where unturned"),
    ("MistralForCausalLM", "window"),
    ("Qwen2ForCausalLM", "upper windows"),
    ("Qwen3ForCausalLM", "wide heads, tied"),
    ("Qwen3MoeForCausalLM", "a dense layer"),
    ("Gemma2ForCausalLM", "tightly limited"),
    ("Gemma3ForCausalLM", "five to one"),
]
PROMPTS = [random_ids(length, seed=length) for length in (5, WINDOW, 60, 97)]
SHARED = PROMPTS[3][:80]
PROMPTS += [SHARED + random_ids(9, seed=1), SHARED + random_ids(23, seed=2)]


def ids(results):
    return [list(result.outputs[0].token_ids) for result in results]


def open_llm(path, dtype="float32", memory=2**25, **settings):
    kv = {"memory": memory, "block_size": 16, "watermark": 0.0}
    return LLM(model=str(path), dtype=dtype, max_model_len=200, kv=kv, **settings)


def greedy(model, prompt):
    """Hugging Face's own generation."""
    known = torch.tensor([prompt])
    out = model.generate(
        known,
        attention_mask=torch.ones_like(known),
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        do_sample=False,
        use_cache=True,
        eos_token_id=None,
        pad_token_id=0,
    )
    return out[0, len(prompt) :].tolist()


@pytest.mark.parametrize(("architecture", "case"), PICKS)
def test_greedy_tokens_equal_generate_however_they_are_run(architecture, case, save_model):
    """In one batch, then again with cached prefixes, then in a pool too small for the batch."""
    model = random_model(architecture, case)
    expected = [greedy(model, prompt) for prompt in PROMPTS]
    path = save_model(model)
    with open_llm(path) as llm:
        assert ids(llm.generate(PROMPTS, GREEDY)) == expected
        again = llm.generate(PROMPTS, GREEDY)
        assert ids(again) == expected
        assert again[-1].num_cached_tokens >= 64
    few = 16 * block_bytes(model.config)
    with open_llm(path, memory=few, scheduling={"max_num_batched_tokens": 40}) as llm:
        assert ids(llm.generate(PROMPTS, GREEDY)) == expected
        keeps_everything = case != "window"  # windows alone need few blocks
        assert bool(llm.stats()["preemptions"]) == keeps_everything


@pytest.mark.parametrize(
    ("architecture", "case"),
    [("MistralForCausalLM", "window"), ("Gemma3ForCausalLM", "five to one")],
)
def test_drafts_within_windows_change_nothing(architecture, case, save_model):
    model = random_model(architecture, case)
    prompts = [PROMPTS[0] * 14, [7] * 90]
    with open_llm(save_model(model), speculation={"methods": ["ngram"]}) as llm:
        assert ids(llm.generate(prompts, GREEDY)) == [greedy(model, one) for one in prompts]
        assert llm.stats()["spec_draft_tokens"] > 0


def block_bytes(config):
    """float32 bytes of 16 tokens in all layers."""
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return config.num_hidden_layers * 2 * 16 * config.num_key_value_heads * head_dim * 4


def test_experts_load_the_same_from_one_tensor_each_and_from_one_for_all(save_model):
    model = random_model("Qwen3MoeForCausalLM", "a dense layer")
    path = save_model(model)
    with open_llm(path) as llm:
        expected = ids(llm.generate(PROMPTS[:2], GREEDY))
    tensors = load_file(path / "model.safetensors")
    apart = "model.layers.0.mlp.experts.5.gate_proj.weight"
    whole = {name: one.contiguous() for name, one in model.state_dict().items()}
    assert apart in tensors
    assert apart not in whole
    assert "model.layers.0.mlp.experts.gate_up_proj" in whole
    save_file(whole, path / "model.safetensors")
    with open_llm(path) as llm:
        assert ids(llm.generate(PROMPTS[:2], GREEDY)) == expected


def test_a_stray_expert_is_named(save_model):
    from rtp_core.errors import WeightLoadError

    model = random_model("Qwen3MoeForCausalLM", "experts")
    path = save_model(model)
    tensors = load_file(path / "model.safetensors")
    del tensors["model.layers.1.mlp.experts.3.up_proj.weight"]
    save_file(tensors, path / "model.safetensors")
    with pytest.raises(WeightLoadError, match=r"missing: model\.layers\.1\.mlp\.experts\.3\.up"):
        open_llm(path)


def test_configurations_of_older_files_mean_the_same(save_model):
    """`rope_theta`, `rope_local_base_freq` and a pattern instead of layer types."""
    model = random_model("Gemma3ForCausalLM", "five to one")
    path = save_model(model)
    config = json.loads((path / "config.json").read_text())
    for key in ("layer_types", "rope_parameters"):
        assert config.pop(key)
    config |= {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "sliding_window_pattern": 6}
    (path / "config.json").write_text(json.dumps(config))
    with open_llm(path) as llm:
        assert ids(llm.generate(PROMPTS[3:4], GREEDY)) == [greedy(model, PROMPTS[3])]
