"""Heads that do not fit, or are not whole, are refused before a weight of the model is read."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from eagle_heads import VOCAB, config_of, tensors_of, write_head

from rtp_core import LLM
from rtp_core.errors import ConfigError, ModelError, RtpError


def refused(tiny_model, head, **options) -> str:
    settings = {"spec_eagle": {"head": str(head), **options}}
    with pytest.raises(RtpError) as caught:
        LLM(
            model=str(tiny_model), dtype="float32", plugins=settings, kv={"memory": 2**22},
            speculation={"methods": ["eagle"]},
        )  # fmt: skip
    assert isinstance(caught.value, ConfigError | ModelError)
    assert caught.value.remedy
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target_hidden_size": 96}, "states of 96 numbers, the model has 48"),
        ({"vocab_size": 300}, "a vocabulary of 300 tokens, the model has 259"),
        ({"target_fingerprint": "abc"}, "trained for the weights abc"),
        ({"eagle_config": {"eagle_aux_hidden_state_layer_ids": [1, 40]}}, "a model that has 3"),
        ({"eagle_config": {"eagle_aux_hidden_state_layer_ids": "low"}}, "list of whole numbers"),
        ({"eagle_config": {}}, "reads three of at least 6"),
        ({"num_attention_heads": 6}, r"q_proj.weight has shape \[64, 96\]"),
        ({"intermediate_size": 65}, "gate_proj"),
        ({"draft_vocab_size": 64}, "lm_head.weight"),
        ({"hidden_size": "48"}, "hidden_size is '48'"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"rms_norm_eps": 0}, "rms_norm_eps is 0"),
        ({"rope_scaling": {"type": "yarn"}}, "rope_scaling is 'yarn'"),
        ({"rope_theta": -1}, "rope_theta"),
        ({"num_hidden_layers": 2}, "num_hidden_layers is 2"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    ],
)
def test_a_configuration_that_does_not_fit(tiny_model, tmp_path, changes, said):
    head = write_head(tmp_path / "head", config_of(**changes), tensors_of())
    message = refused(tiny_model, head)
    assert re.search(said, message), message


def test_another_models_head_can_be_insisted_on(tiny_model, tmp_path):
    config = config_of(target_fingerprint="abc")
    head = write_head(tmp_path / "head", config, tensors_of())
    options = {"spec_eagle": {"head": str(head), "any_model": True}}
    with LLM(
        model=str(tiny_model), dtype="float32", plugins=options, kv={"memory": 2**22},
        speculation={"methods": ["eagle"]},
    ) as llm:  # fmt: skip
        assert llm.generate([[1, 2, 3]])


@pytest.mark.parametrize(
    "name",
    ["fc.weight", "lm_head.weight", "norm.weight", "d2t", "midlayer.mlp.up_proj.weight",
     "midlayer.input_layernorm.weight", "midlayer.self_attn.o_proj.weight"],
)  # fmt: skip
def test_a_tensor_that_is_missing(tiny_model, tmp_path, name):
    tensors = tensors_of()
    del tensors[name]
    assert name in refused(tiny_model, write_head(tmp_path / "head", config_of(), tensors))


@pytest.mark.parametrize("wrong", [-1, VOCAB, 2**40])
def test_a_draft_vocabulary_that_leads_astray(tiny_model, tmp_path, wrong):
    tensors = tensors_of()
    tensors["d2t"][5] = wrong - 5
    said = refused(tiny_model, write_head(tmp_path / "head", config_of(), tensors))
    assert f"d2t leads to token {wrong}" in said


def test_a_draft_vocabulary_of_ids_instead_of_offsets(tiny_model, tmp_path):
    """The usual mistake: d2t holds differences."""
    tensors = tensors_of()
    tensors["d2t"] = torch.from_numpy(np.arange(128) * 2)
    said = refused(tiny_model, write_head(tmp_path / "head", config_of(), tensors))
    assert "offsets" in said


def test_a_pickle_is_not_opened(tiny_model, tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch /tmp/x'\ntR.")
    said = refused(tiny_model, tmp_path)
    assert "pickle" in said
    assert "weights_only=True" in said
    assert "pickle" in refused(tiny_model, tmp_path / "pytorch_model.bin")


def test_paths_that_hold_no_head(tiny_model, tmp_path):
    assert "does not exist" in refused(tiny_model, tmp_path / "none")
    assert "no safetensors" in refused(tiny_model, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    assert "not a safetensors file" in refused(tiny_model, tmp_path)


def test_a_head_without_its_configuration(tiny_model, tmp_path):
    head = write_head(tmp_path / "head", config_of(), tensors_of())
    for content, said in (("[]", "no JSON object"), ("{", "cannot be read"), (None, "config.json")):
        if content is None:
            (head / "config.json").unlink()
        else:
            (head / "config.json").write_text(content)
        assert said in refused(tiny_model, head)


def test_no_head_is_shipped_for_a_strange_model(tiny_model):
    with pytest.raises(ConfigError, match="no head is shipped for this LlamaForCausalLM"):
        LLM(model=str(tiny_model), dtype="float32", speculation={"methods": ["eagle"]})
