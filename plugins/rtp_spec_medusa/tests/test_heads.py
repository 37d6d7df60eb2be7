"""Layouts against a plain forward pass, refusals, the shipped heads, the same text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from rtp_core import LLM, SamplingParams
from rtp_core.errors import RtpError

HIDDEN, VOCAB = 48, 259
CASES = json.loads((Path(__file__).parent / "data" / "drafts.json").read_text())["cases"]
PROMPT = [(place * 37 + 11) % 256 for place in range(40)]
GREEDY = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True)
SEEDED = SamplingParams(temperature=1.0, top_k=60, seed=5, max_tokens=24, ignore_eos=True)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.1


def authors(prefix="", heads=3, blocks=2, own=True):
    """The layout of Medusa's authors."""
    tensors = {}
    for i in range(heads):
        for j in range(blocks):
            tensors[f"{prefix}{i}.{j}.linear.weight"] = random(HIDDEN, HIDDEN, seed=i * 7 + j)
            tensors[f"{prefix}{i}.{j}.linear.bias"] = random(HIDDEN, seed=i * 7 + j + 50)
        if own:
            tensors[f"{prefix}{i}.{blocks}.weight"] = random(VOCAB, HIDDEN, seed=i + 99)
    return tensors


def vllm():
    """vLLM's: no biases, some tokens only."""
    tensors = {"token_map": torch.arange(0, VOCAB, 2)}
    for i in range(3):
        tensors[f"blocks.{i}.layers.0.weight"] = random(HIDDEN, HIDDEN, seed=i)
        tensors[f"lm_heads.{i}.weight"] = random(len(tensors["token_map"]), HIDDEN, seed=i + 9)
    return tensors


def write(folder: Path, tensors, **config) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "medusa", **config}))
    save_file(tensors, folder / "medusa_lm_head.safetensors")
    return folder


def open_llm(model, head=None, most=4, dtype="float32", **settings):
    settings.setdefault("kv", {"memory": 2**25})
    if most:
        settings["speculation"] = {"methods": ["medusa"], "max_draft_tokens": most}
    if head:
        settings["plugins"] = {"spec_medusa": {"head": str(head)}}
    return LLM(model=str(model), dtype=dtype, **settings)


def drafter(llm):
    (held,) = llm._engine._speculation._speculators.values()
    return held._speculator


def first_draft(llm):
    own, seen = drafter(llm).propose, []

    def propose(rows):
        drafts = own(rows)
        seen.extend((list(rows[0].token_ids), list(one.token_ids)) for one in drafts)
        return drafts

    drafter(llm).propose = propose
    llm.generate([PROMPT], GREEDY)
    assert llm.stats()["plugin_errors"] == {}
    return seen[0]


def plain(hf, known, blocks, matrices, ids=None):
    with torch.inference_mode():
        out = hf(torch.tensor([known[:-1]]), output_hidden_states=True)
        state, found = out.hidden_states[-1][0, -1], []
        for own, matrix in zip(blocks, matrices, strict=True):
            x = state
            for weight, bias in own:
                x = x + functional.silu(functional.linear(x, weight, bias))
            best = int((matrix @ x).argmax())
            found.append(best if ids is None else int(ids[best]))
    return found


@pytest.mark.parametrize("prefix", ["", "medusa_head."])
@pytest.mark.parametrize("own", [True, False])
def test_the_layout_of_the_authors(tiny_model, tiny_hf_model, tmp_path, prefix, own):
    tensors = authors(prefix, own=own)
    with open_llm(tiny_model, write(tmp_path, tensors, medusa_num_heads=2)) as llm:
        known, draft = first_draft(llm)
    blocks = [
        [(tensors[f"{prefix}{i}.{j}.linear.weight"], tensors[f"{prefix}{i}.{j}.linear.bias"])
         for j in range(2)] for i in range(3)
    ]  # fmt: skip
    head = tiny_hf_model.lm_head.weight
    matrices = [tensors[f"{prefix}{i}.2.weight"] if own else head for i in range(3)]
    assert draft == plain(tiny_hf_model, known, blocks, matrices)


@pytest.mark.parametrize("shared", [True, False])
def test_the_layout_of_vllm(tiny_model, tiny_hf_model, tmp_path, shared):
    tensors = vllm()
    ids = tensors["token_map"]
    if shared:
        tensors = {name: one for name, one in tensors.items() if not name.startswith("lm_heads")}
    with open_llm(tiny_model, write(tmp_path, tensors)) as llm:
        known, draft = first_draft(llm)
    blocks = [[(tensors[f"blocks.{i}.layers.0.weight"], None)] for i in range(3)]
    rows = tiny_hf_model.lm_head.weight[ids]
    matrices = [rows if shared else tensors[f"lm_heads.{i}.weight"] for i in range(3)]
    assert draft == plain(tiny_hf_model, known, blocks, matrices, ids)


def refused(tiny_model, head) -> str:
    with pytest.raises(RtpError) as caught:
        open_llm(tiny_model, head)
    assert caught.value.remedy
    return str(caught.value)


def test_refusals(tiny_model, tmp_path):
    whole = authors()

    def said(tensors, **config):
        return refused(
            tiny_model, write(tmp_path / str(len(list(tmp_path.iterdir()))), tensors, **config)
        )

    assert "vocabulary of 300" in said(whole, vocab_size=300)
    assert "trained for the weights abc" in said(whole, target_fingerprint="abc")
    assert "states of 32 numbers" in said({"0.0.linear.weight": random(32, 32)})
    assert "no Medusa heads" in said({"fc.weight": random(4, 4)})
    assert "unequal numbers of blocks" in said(
        {name: one for name, one in whole.items() if not name.startswith("2.1.")}
    )
    assert "1.2.weight has shape" in said(whole | {"1.2.weight": random(VOCAB + 1, HIDDEN)})
    assert "0.0.linear.bias has shape" in said(whole | {"0.0.linear.bias": random(3)})
    for wrong in (-1, VOCAB, 2):
        tensors = vllm()
        tensors["token_map"][0] = wrong
        assert "token_map holds" in said(tensors)
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "medusa_lm_head.pt").write_bytes(b"\x80\x04.")
    assert "weights_only=True" in refused(tiny_model, tmp_path / "pickled")
    assert "no heads are shipped" in refused(tiny_model, None)


@pytest.mark.parametrize("sampling", [GREEDY, SEEDED], ids=["greedy", "seeded"])
def test_the_text_is_the_same(tiny_model, tmp_path, sampling):
    """Batched, in chunks, behind hits; random heads are rarely right, and that is fine."""
    prompts = [PROMPT[:length] for length in (1, 15, 16, 17, 40)] + [PROMPT[::-1]]

    def run(llm):
        return [list(one.outputs[0].token_ids) for one in llm.generate(prompts, sampling)]

    with open_llm(tiny_model, most=None) as llm:
        wanted = run(llm)
    scheduling = {"max_num_batched_tokens": 9}
    with open_llm(tiny_model, write(tmp_path, authors()), scheduling=scheduling) as llm:
        assert run(llm) == wanted
        assert run(llm) == wanted
        assert llm.stats()["plugin_errors"] == {}
        assert llm._engine._scheduler.cache.num_blocks_used == 0


@pytest.mark.model
def test_the_shipped_heads_guess_as_a_plain_implementation_does(demo_model):
    with open_llm(demo_model) as llm:
        one = drafter(llm)
        own, seen = one._heads.logits, []
        one._heads.logits = lambda head, states: seen.append(own(head, states)) or seen[-1]
        for case in CASES:
            text = case["prompt_ids"] + case["greedy_ids"]
            for start in case["starts"]:
                seen.clear()
                prompt = text[: start["last_target_row"] + 1]
                llm.generate([prompt], SamplingParams(temperature=0.0, max_tokens=6))
                for found, (wanted, values) in zip(seen, start["medusa_top5"], strict=False):
                    top = found[0].topk(5)
                    assert one._ids[top.indices].tolist() == wanted
                    assert top.values.tolist() == pytest.approx(values, abs=1e-3)


@pytest.mark.model
def test_the_shipped_heads_save_steps(demo_model):
    with open_llm(demo_model, most=2, dtype="auto") as llm:
        llm.generate(
            [case["prompt_ids"] for case in CASES], SamplingParams(temperature=0.0, max_tokens=32)
        )
        stats = llm.stats()
    assert 1 + stats["spec_accepted_tokens"] / stats["spec_drafts"] > 1.3
