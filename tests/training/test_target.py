"""The frozen target says what the engine writes."""

from __future__ import annotations

import pytest
import torch

from rtp_core.config.read import load_config
from rtp_core.engine.prepare import prepare
from rtp_core.errors import ModelError
from rtp_core.training.noise import noise_of
from rtp_core.training.target import load_target


def logits_of(target, ids):
    states = target.states(torch.tensor([ids]), ())
    return torch.nn.functional.linear(states.final[0], target.head)


def test_greedy_texts_are_its_best_tokens(tiny_target, tiny_texts):
    for text in tiny_texts:
        if text.temperature == 0:
            best = logits_of(tiny_target, text.token_ids).argmax(-1)
            assert best[text.num_prompt - 1 : -1].tolist() == text.answer


def test_sampled_texts_are_its_best_tokens_with_the_noise_of_their_seed(tiny_target, tiny_texts):
    for text in tiny_texts:
        if text.temperature > 0:
            positions = torch.arange(text.num_prompt, len(text.token_ids))
            noise = noise_of(text.seed)(positions, torch.arange(tiny_target.spec.vocab_size))
            logits = logits_of(tiny_target, text.token_ids)[text.num_prompt - 1 : -1]
            assert (logits / text.temperature + noise).argmax(-1).tolist() == text.answer


def test_captured_states_are_those_entering_the_layers(tiny_target, learnable_hf_model):
    ids = torch.tensor([[5, 80, 70, 66, 258, 3], [9, 8, 7, 6, 5, 4]])
    found = tiny_target.states(ids, (0, 2))
    with torch.no_grad():
        wanted = learnable_hf_model(ids, output_hidden_states=True).hidden_states
    torch.testing.assert_close(
        found.captured, torch.cat((wanted[0], wanted[2]), -1), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(found.final, wanted[3], rtol=1e-4, atol=1e-4)


def test_padding_at_the_end_changes_nothing(tiny_target):
    ids = torch.tensor([[5, 80, 70, 66]])
    padded = torch.nn.functional.pad(ids, (0, 3))
    for one, other in (
        (tiny_target.states(ids, (1,)).captured, tiny_target.states(padded, (1,)).captured[:, :4]),
        (tiny_target.states(ids, ()).final, tiny_target.states(padded, ()).final[:, :4]),
    ):
        torch.testing.assert_close(one, other)


def test_windows_qk_norms_and_layers_that_do_not_rotate_are_honoured(save_model):
    """Against transformers, whose masks are its own."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    sizes = {
        "vocab_size": 259, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "max_position_embeddings": 128, "tie_word_embeddings": True, "eos_token_id": 257,
        "bos_token_id": None, "pad_token_id": None, "initializer_range": 0.3,
    }  # fmt: skip
    qwen = transformers.Qwen3Config(
        **sizes, use_sliding_window=True, sliding_window=5, max_window_layers=2
    )
    smol = transformers.SmolLM3Config(**sizes, no_rope_layer_interval=2, use_sliding_window=False)
    for model in (
        transformers.Qwen3ForCausalLM(qwen),
        transformers.SmolLM3ForCausalLM(smol),
    ):
        path = str(save_model(model.eval()))
        config = load_config(overrides={"model": path, "dtype": "float32", "device": "cpu"})
        target = load_target(prepare(config), lambda done, total: None)
        ids = torch.randint(0, 250, (2, 20))
        with torch.no_grad():
            wanted = model(ids).logits
        found = torch.nn.functional.linear(target.states(ids, ()).final, target.head)
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


def test_models_with_capped_scores_are_refused(save_model):
    transformers = pytest.importorskip("transformers")
    config = transformers.Gemma2Config(
        vocab_size=259, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, max_position_embeddings=128,
        eos_token_id=257, bos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    path = str(save_model(transformers.Gemma2ForCausalLM(config)))
    prepared = prepare(load_config(overrides={"model": path, "device": "cpu"}))
    with pytest.raises(ModelError, match="Gemma2ForCausalLM: it caps"):
        load_target(prepared, lambda done, total: None)
