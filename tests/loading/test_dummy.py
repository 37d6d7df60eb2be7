"""Random weights without a checkpoint."""

from __future__ import annotations

import json

import torch

from rtp_core import SamplingParams

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}


def test_a_configuration_is_enough(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    from rtp_core.api import Request
    from rtp_core.config.read import load_config
    from rtp_core.engine.assemble import build_engine

    overrides = {"model": str(tmp_path), "loading": {"loader": "dummy"}, "kv": {"memory": 2**22}}
    answers = []
    for _ in range(2):
        engine = build_engine(load_config(overrides=overrides))
        greedy = SamplingParams(temperature=0.0, max_tokens=6, ignore_eos=True)
        engine.submit(Request("r", (1, 2, 3), greedy))
        tokens = []
        while engine.has_work:
            for event in engine.step():
                assert event.finish_reason != "error"
                tokens.extend(event.token_ids)
        answers.append(tokens)
    assert answers[0] == answers[1]
    assert len(answers[0]) == 6


def test_matrices_are_small_and_vectors_close_to_one(tmp_path):
    from rtp_core.loading.dummy import DummyLoader, dummy_plan
    from rtp_core.loading.load import load_weights
    from rtp_core.models.llama import LlamaFamily

    family = LlamaFamily()
    table = family.weights(family.spec(CONFIG, "float32", ""))
    weights, stats = load_weights(dummy_plan(table), DummyLoader(), "cpu", lambda _: None)
    norm, matrix = weights["norm"], weights["layers.0.gate_up"]
    assert abs(float(norm.mean()) - 1.0) < 0.02
    assert 0.015 < float(matrix.std()) < 0.025
    assert not torch.equal(weights["layers.0.gate_up"], weights["layers.1.gate_up"])
    assert stats.bytes_read == sum(one.numel() * 4 for one in weights.values())
