"""The shipped head on the demo model: its drafts, how many of them hold, and the same text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rtp_core import LLM, SamplingParams

CASES = json.loads((Path(__file__).parent / "data" / "drafts.json").read_text())["cases"]
"""Drafts and logits of a plain implementation that computes all rows at once, float32."""
GREEDY = SamplingParams(temperature=0.0, max_tokens=32)
SAMPLED = SamplingParams(temperature=0.8, seed=7, max_tokens=32)
pytestmark = pytest.mark.model


def open_demo(path, most=None, **settings):
    if most:
        settings["speculation"] = {"methods": ["eagle"], "max_draft_tokens": most}
    return LLM(model=str(path), kv={"memory": 2**27}, **settings)


def ids(results):
    return [list(result.outputs[0].token_ids) for result in results]


@pytest.fixture(scope="module")
def prompts():
    return [case["prompt_ids"] for case in CASES]


def test_drafts_and_logits_are_those_of_a_plain_implementation(demo_model):
    with open_demo(demo_model, 5, dtype="float32") as llm:
        (held,) = llm._engine._speculation._speculators.values()
        head, table = held._speculator._head, held._speculator._draws._ids
        own, logits = head.logits, []
        head.logits = lambda output: logits.append(own(output)) or logits[-1]
        for case in CASES:
            text = case["prompt_ids"] + case["greedy_ids"]
            for start in case["starts"]:
                logits.clear()
                prompt = text[: start["last_target_row"] + 1]
                llm.generate([prompt], SamplingParams(temperature=0.0, max_tokens=7))
                for found, (wanted, values) in zip(logits, start["eagle3_top5"], strict=False):
                    top = found[0].topk(5)
                    assert table[top.indices].tolist() == wanted
                    assert top.values.tolist() == pytest.approx(values, abs=5e-4)


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_the_text_is_the_same_and_takes_fewer_steps(demo_model, prompts, sampling):
    with open_demo(demo_model, dtype="float32") as llm:
        wanted = ids(llm.generate(prompts, sampling))
    with open_demo(demo_model, 3, dtype="float32") as llm:
        assert ids(llm.generate(prompts, sampling)) == wanted
        stats = llm.stats()
    per_step = 1 + stats["spec_accepted_tokens"] / stats["spec_drafts"]
    assert per_step > (2.2 if sampling.greedy else 1.7)


def test_sampled_requests_profit_from_sharing_the_noise(demo_model, prompts, monkeypatch):
    """Against drafts of the likeliest tokens."""
    from rtp_spec_eagle.draws import Draws

    accepted = []
    for shared in (True, False):
        if not shared:
            monkeypatch.setattr(Draws, "_drawn", lambda self, row, logits, at: int(
                self._ids[logits.argmax()]
            ))  # fmt: skip
        with open_demo(demo_model, 3) as llm:
            for seed in range(3):
                llm.generate(prompts, SamplingParams(temperature=0.8, seed=seed, max_tokens=48))
            stats = llm.stats()
            assert stats["plugin_errors"] == {}
        accepted.append(1 + stats["spec_accepted_tokens"] / stats["spec_drafts"])
    assert accepted[0] > 1.04 * accepted[1]


@pytest.mark.parametrize("weights", ["auto", "bf16"])
def test_half_precision_accepts_as_many(demo_model, prompts, weights):
    with open_demo(demo_model, 3, cpu_weights=weights) as llm:
        llm.generate(prompts, GREEDY)
        stats = llm.stats()
    assert stats["plugin_errors"] == {}
    assert 1 + stats["spec_accepted_tokens"] / stats["spec_drafts"] > 2.1
