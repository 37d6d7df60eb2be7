"""Families in bfloat16 against Hugging Face in float32, over a text both are given."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parent))
from paging import BLOCK, Harness
from small_models import logits_of, random_ids, random_model

LENGTH, DECODED = 192, 24
WIDE = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "initializer_range": 0.03,
}
PICKS = [
    ("LlamaForCausalLM", "biases"),
    ("SmolLM3ForCausalLM", "windows where unturned"),
    ("MistralForCausalLM", "window"),
    ("Qwen2ForCausalLM", "upper windows"),
    ("Qwen3ForCausalLM", "normed heads"),
    ("Qwen3MoeForCausalLM", "a dense layer"),
    ("Gemma2ForCausalLM", "limited"),
    ("Gemma3ForCausalLM", "two to one"),
]


def wide_model(architecture, case):
    """Decided as trained models are: far-apart logits, and routers that mean their choice."""
    model = random_model(architecture, case, **WIDE)
    with torch.no_grad():
        model.lm_head.weight.mul_(8)
        for name, parameter in model.named_parameters():
            if name.endswith("mlp.gate.weight"):
                parameter.mul_(8)
    return model


@pytest.mark.parametrize(("architecture", "case"), PICKS)
def test_tokens_and_distributions_agree_with_float32(architecture, case):
    model = wide_model(architecture, case)
    ids = random_ids(LENGTH)
    expected = logits_of(model, ids).log_softmax(-1)
    harness = Harness(model, "bfloat16", num_blocks=LENGTH // BLOCK)
    blocks = list(range(LENGTH // BLOCK))
    prefilled = LENGTH - DECODED
    parts = [harness.run((ids[:prefilled], 0, blocks))]
    parts += [harness.run((ids[at : at + 1], at, blocks)) for at in range(prefilled, LENGTH)]
    got = torch.cat(parts).log_softmax(-1)
    assert (got.argmax(-1) == expected.argmax(-1)).float().mean() >= 0.95
    divergence = (expected.exp() * (expected - got)).sum(-1)
    assert divergence.mean() <= 0.01
    assert divergence[prefilled:].mean() <= 0.01


@pytest.mark.parametrize(
    ("architecture", "case"), [("MistralForCausalLM", "window"), ("Gemma2ForCausalLM", "limited")]
)
def test_decoding_together_is_decoding_alone(architecture, case):
    """Padded together, each with its window of keys."""
    harness = Harness(wide_model(architecture, case), "bfloat16", num_blocks=256)
    rows, first = [], 0
    for number, length in enumerate((60, 71, 90)):
        blocks = list(range(first, first + 24))
        first += 24
        harness.run((random_ids(length, seed=number), 0, blocks))
        rows.append(([number + 1], length, blocks))
    together = harness.run(*rows)
    for number, row in enumerate(rows):
        alone = harness.run(row)
        torch.testing.assert_close(together[number : number + 1], alone, atol=0.3, rtol=0.05)
