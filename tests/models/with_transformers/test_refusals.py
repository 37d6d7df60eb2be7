"""Architectures that would be served wrongly are refused by name, before weights are read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import zoo

from rtp_core.config.read import load_config
from rtp_core.engine.prepare import prepare
from rtp_core.errors import ConfigError, ModelError

REFUSED = {
    "mpt": ("MptForCausalLM", {}, "ALiBi"),
    "bloom": ("BloomForCausalLM", {}, "ALiBi"),
    "falcon": ("FalconForCausalLM", {"new_decoder_architecture": True}, "AttentionInterface"),
    "gptj": ("GPTJForCausalLM", {}, "AttentionInterface"),
    "mamba": ("MambaForCausalLM", {}, "linear_attention"),
    "rwkv": ("RwkvForCausalLM", {}, "recurrent state"),
    "jamba": ("JambaForCausalLM", {}, "linear_attention"),
    "t5": ("T5ForConditionalGeneration", {}, "encoder-decoder"),
    "bert": ("BertLMHeadModel", {}, "others than itself"),
    "llama4_text": ("Llama4ForCausalLM", {}, "chunked_attention"),
    "deepseek_v32": ("DeepseekV32ForCausalLM", {}, "indexed_attention"),
    "diffllama": ("DiffLlamaForCausalLM", {}, "ran 32 times in 16 layers"),
    "codegen": ("CodeGenForCausalLM", {}, "masks itself"),
    "phi3": ("Phi3Model", {}, "no causal language model"),
    "olmo": ("OlmoForSequenceClassification", {}, "no causal language model"),
}  # fmt: skip


def described(directory: Path, kind: str, architecture: str, **changes):
    settings = zoo.transformers.CONFIG_MAPPING[kind]().to_diff_dict()
    settings |= {"model_type": kind, "architectures": [architecture], **changes}
    return prepared(zoo.write_config(directory, settings))


def prepared(directory: Path, **overrides):
    return prepare(load_config(overrides={"model": str(directory), **overrides}))


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_with_architecture_reason_and_remedy(tmp_path, kind):
    architecture, changes, reason = REFUSED[kind]
    with pytest.raises(ModelError) as refused:
        described(tmp_path, kind, architecture, **changes)
    assert refused.value.message.startswith(f"{architecture} cannot be served")
    assert reason in refused.value.message
    assert refused.value.remedy == f"it needs a plugin that offers model:{architecture}"


def test_code_beside_a_checkpoint_is_never_run(tmp_path):
    (tmp_path / "modeling_mine.py").write_text("raise SystemExit('ran')")
    settings = {
        "model_type": "mine",
        "architectures": ["MineForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_mine.MineForCausalLM"},
    }
    with pytest.raises(ModelError, match=r"MineForCausalLM.*never run"):
        prepared(zoo.write_config(tmp_path, settings))


def test_a_configuration_does_not_choose_attention_code(tmp_path):
    """transformers would fetch a kernel of this name from the Hub."""
    small = {**zoo.SHAPE, "_attn_implementation": "someone/kernel", "fusion_config": {"x": True}}
    assert described(tmp_path, "phi3", "Phi3ForCausalLM", **small).spec.num_layers == 3


def test_a_model_type_newer_than_the_library_is_named(tmp_path):
    settings = {"model_type": "mine", "architectures": ["MineForCausalLM"]}
    with pytest.raises(ModelError, match=r"does not know the model_type 'mine'.*upgrade"):
        prepared(zoo.write_config(tmp_path, settings))


def test_a_value_out_of_range_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"Phi3ForCausalLM.*config.json is not valid"):
        described(tmp_path, "phi3", "Phi3ForCausalLM", hidden_size="many")


def test_without_transformers_the_remedy_is_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    settings = {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"]}
    with pytest.raises(ModelError, match="no native family for Phi3ForCausalLM") as refused:
        prepared(zoo.write_config(tmp_path, settings))
    assert refused.value.remedy == "pip install transformers"


def test_longrope_is_served_up_to_the_length_where_frequencies_change(tmp_path):
    factors = [1.0] * 4
    settings = {
        **zoo.SHAPE,
        "model_type": "phi3",
        "architectures": ["Phi3ForCausalLM"],
        "original_max_position_embeddings": 64,
        "rope_parameters": {
            "rope_type": "longrope", "rope_theta": 10000.0,
            "short_factor": factors, "long_factor": [4.0] * 4,
        },
    }  # fmt: skip
    directory = zoo.write_config(tmp_path, settings)
    assert prepared(directory).spec.max_model_len == 64
    with pytest.raises(ConfigError, match=r"model.max_model_len: 100 is more than the 64"):
        prepared(directory, max_model_len=100)


def test_positions_under_another_name_bound_the_context(tmp_path):
    made = described(tmp_path, "gpt2", "GPT2LMHeadModel", n_positions=48, vocab_size=zoo.VOCAB)
    assert made.context.limits.max_model_len == made.spec.max_model_len == 48


def test_codes_are_refused_where_no_layer_reads_them(tmp_path):
    with pytest.raises(ConfigError, match=r"model.cpu_weights: int4 is not available"):
        prepared(
            zoo.write_config(
                tmp_path, {**zoo.SHAPE, "model_type": "phi3", "architectures": ["Phi3ForCausalLM"]}
            ),
            cpu_weights="int4",
        )


def test_a_native_model_does_not_import_transformers(tiny_model):
    code = (
        "import sys\n"
        "from rtp_core import LLM, SamplingParams\n"
        "with LLM(model=sys.argv[1], dtype='float32', kv={'memory': 2**22}) as llm:\n"
        "    llm.generate('abc', SamplingParams(max_tokens=2))\n"
        "    llm.explain()\n"
        "print('transformers' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_model)],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "False"
