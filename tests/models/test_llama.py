"""The native Llama against Hugging Face, and against itself under batching and chunking."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from paging import BLOCK, Harness

transformers = pytest.importorskip("transformers")
VOCAB = 97


def random_llama(**changes):
    torch.manual_seed(0)
    settings = {
        "vocab_size": VOCAB,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
    }
    config = transformers.LlamaConfig(**{**settings, **changes})
    model = transformers.LlamaForCausalLM(config).eval()
    for name, parameter in model.named_parameters():  # transformers starts biases at zero
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.5)
        elif "norm" in name:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.3)
        else:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture(scope="module")
def hf():
    return random_llama()


def prompt(length, seed=1):
    return torch.randint(
        0, VOCAB, (length,), generator=torch.Generator().manual_seed(seed)
    ).tolist()


def reference(model, ids):
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0].float()


def blocks_for(length, first=0):
    return list(range(first, first - (-length // BLOCK)))


VARIANTS = {
    "gqa": {},
    "mha": {"num_key_value_heads": 6},
    "mqa": {"num_key_value_heads": 1},
    "untied": {"tie_word_embeddings": False},
    "bias": {"attention_bias": True, "mlp_bias": True},
    "attention bias": {"attention_bias": True},
    "mlp bias": {"mlp_bias": True},
    "wide heads": {"head_dim": 32},
    "theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
    "llama3": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
}


@pytest.mark.parametrize("name", VARIANTS)
def test_prefill_logits_equal_hugging_face(name):
    model = random_llama(**VARIANTS[name])
    ids = prompt(150)
    ours = Harness(model).run((ids, 0, blocks_for(150)))
    torch.testing.assert_close(ours, reference(model, ids), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_float32_chunks_give_the_same_bits(hf, chunk):
    ids = prompt(150)
    whole = Harness(hf).run((ids, 0, blocks_for(150)))
    harness = Harness(hf)
    parts = [
        harness.run((ids[at : at + chunk], at, blocks_for(150))) for at in range(0, len(ids), chunk)
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_float32_batch_and_scattered_blocks_give_the_same_bits(hf):
    ids = prompt(140)
    alone = Harness(hf)
    alone.run((ids, 0, blocks_for(141)))
    expected = alone.run(([5], 140, blocks_for(141)))
    harness = Harness(hf, num_blocks=128)
    scattered = list(range(100, 100 - 36, -1))
    other = prompt(33, seed=2)
    harness.run((other, 0, blocks_for(34)), (ids, 0, scattered))
    got = harness.run(([9], 33, blocks_for(34)), ([5], 140, scattered), ([3], 0, [60]))
    assert torch.equal(got[1:2], expected)


@pytest.mark.parametrize("lengths", [(40, 41, 42), (150, 170, 160), (8, 150)])
def test_bfloat16_batched_decode_is_close_to_each_alone(hf, lengths):
    harness = Harness(hf, "bfloat16", num_blocks=256)
    tables, rows, first = [], [], 0
    for number, length in enumerate(lengths):
        tables.append(blocks_for(length + 1, first))
        first = tables[-1][-1] + 1
        harness.run((prompt(length, number), 0, tables[-1]))
        rows.append(([number + 1], length, tables[-1]))
    together = harness.run(*rows)
    for number, row in enumerate(rows):
        alone = harness.run(row)
        torch.testing.assert_close(together[number : number + 1], alone, atol=0.2, rtol=0.05)
        full = reference(hf, [*prompt(lengths[number], number), number + 1])[-1:]
        torch.testing.assert_close(alone, full, atol=0.25, rtol=0.1)


def test_mixed_step_of_prefill_and_decode_matches_hugging_face(hf):
    harness = Harness(hf)
    first, second = prompt(30, 1), prompt(21, 2)
    harness.run((first[:29], 0, blocks_for(30)))
    got = harness.run((first[29:], 29, blocks_for(30)), (second, 0, [50, 40, 41, 42, 10, 11]))
    torch.testing.assert_close(got[:1], reference(hf, first)[-1:], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(got[1:], reference(hf, second), atol=2e-5, rtol=1e-4)


def test_tree_drafts_see_only_their_ancestors(hf):
    ids = prompt(10)
    harness = Harness(hf)
    harness.run((ids[:9], 0, blocks_for(16)))
    # the last known token, then two branches: 1 -> 3 and 2
    row = ([ids[9], 1, 2, 3], 9, blocks_for(16), [-1, -1, 0], 3)
    got = harness.run(row)
    torch.testing.assert_close(got[1], reference(hf, [*ids, 1])[-1], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(got[2], reference(hf, [*ids, 2])[-1], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(got[3], reference(hf, [*ids, 1, 3])[-1], atol=2e-5, rtol=1e-4)


def test_poisoning_a_shared_block_changes_both_readers(hf):
    ids = prompt(8)
    harness = Harness(hf)
    harness.run((ids, 0, [0, 1]))
    rows = (([1], 8, [0, 1, 2]), ([2], 8, [0, 1, 3]))
    before = harness.run(*rows)
    harness.memory.values[:, :, 0:BLOCK] += 1.0
    after = harness.run(*rows)
    assert not torch.allclose(before[0], after[0])
    assert not torch.allclose(before[1], after[1])


def test_a_row_without_slot_computes_and_writes_nothing(hf):
    from rtp_core.api import PlanRow

    ids = prompt(12)
    harness = Harness(hf)
    harness.run((ids, 0, blocks_for(12)))
    kept = harness.memory.keys.clone()
    row = PlanRow("a", ids[11:], 11, 0, True, (blocks_for(12),), writes_kv=False)
    plan = harness.attention.plan([row])
    with torch.inference_mode():
        out = harness.model.forward(torch.tensor(ids[11:]), harness.attention, plan)
    assert torch.equal(harness.memory.keys, kept)
    got = harness.model.logits(out.hidden)
    torch.testing.assert_close(got, reference(hf, ids)[-1:], atol=2e-5, rtol=1e-4)


def test_hidden_states_are_captured_only_when_asked(hf):
    harness = Harness(hf)
    ids = prompt(5)
    from rtp_core.api import PlanRow

    plan = harness.attention.plan([PlanRow("a", ids, 0, 0, True, ([0, 1],))])
    with torch.inference_mode():
        plain = harness.model.forward(torch.tensor(ids), harness.attention, plan)
        asked = harness.model.forward(torch.tensor(ids), harness.attention, plan, (0, 2))
        expected = hf(torch.tensor([ids]), output_hidden_states=True).hidden_states
    assert plain.captured == {}
    assert sorted(asked.captured) == [0, 2]
    torch.testing.assert_close(asked.captured[2], expected[2][0], atol=2e-5, rtol=1e-4)


def greedy(harness, ids, count):
    """`count` tokens, one a step, after a prefill of all but the last of `ids`."""
    blocks = blocks_for(len(ids) + count)
    drawn, start, new = [], 0, list(ids)
    for _ in range(count):
        token = int(harness.run((new, start, blocks))[-1].argmax())
        drawn.append(token)
        start, new = start + len(new), [token]
    return drawn


@pytest.mark.parametrize("name", VARIANTS)
def test_greedy_tokens_equal_hugging_face(name):
    model = random_llama(**VARIANTS[name])
    ids = prompt(30)
    with torch.inference_mode():
        full = model.generate(
            torch.tensor([ids]), max_new_tokens=20, do_sample=False, eos_token_id=None,
            pad_token_id=0,
        )  # fmt: skip
    assert greedy(Harness(model), ids, 20) == full[0, 30:].tolist()


@pytest.mark.parametrize("loader", ["mmap", "file_order"])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_saved_directory_gives_the_same_logits(name, loader, tmp_path):
    """The way of a user's model: what transformers saved, through plan and loader."""
    from rtp_core.loading.checkpoint import open_checkpoint
    from rtp_core.loading.file_order import FileOrderLoader
    from rtp_core.loading.load import load_weights
    from rtp_core.loading.mmap_loader import MmapLoader
    from rtp_core.loading.plan import plan_weights
    from rtp_core.models.llama import LlamaFamily

    model = random_llama(**VARIANTS[name])
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    checkpoint = open_checkpoint(tmp_path)
    family = LlamaFamily()
    spec = family.spec(checkpoint.config, "float32", checkpoint.content_id)
    make = {"mmap": MmapLoader, "file_order": FileOrderLoader}[loader]
    plan = plan_weights(family.weights(spec), checkpoint)
    assert len(plan.file_bytes) > 1
    found, _ = load_weights(plan, make(), "cpu", lambda _: None)
    harness = Harness(model)
    assert spec.rope == harness.spec.rope
    assert found.keys() == harness.parameters.keys()
    for parameter, expected in harness.parameters.items():
        assert torch.equal(found[parameter], expected), parameter
