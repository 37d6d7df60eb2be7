"""One request gives the same tokens however it is run. float32, through the whole engine."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch

from rtp_core import LLM, SamplingParams
from rtp_core.api import Draft, SpeculatorNeeds
from rtp_core.speculation.controller import SpeculationController

GREEDY = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True)
SEEDED = SamplingParams(
    temperature=1.0,
    top_p=0.95,
    top_k=60,
    min_p=0.01,
    seed=11,
    max_tokens=24,
    ignore_eos=True,
    presence_penalty=0.3,
    repetition_penalty=1.1,
)
MODES = pytest.mark.parametrize("sampling", [GREEDY, SEEDED], ids=["greedy", "seeded"])
LENGTHS = (3, 16, 17, 40, 65, 130)


def prompts() -> list[list[int]]:
    draw = random.Random(3)
    shared = [draw.randrange(256) for _ in range(48)]
    made = [[draw.randrange(256) for _ in range(length)] for length in LENGTHS]
    return [*made, shared + made[0], shared + made[1], made[2] * 4, [5] * 40]


def ids(results) -> list[list[int]]:
    return [list(result.outputs[0].token_ids) for result in results]


def open_llm(path, **settings) -> LLM:
    return LLM(model=str(path), dtype="float32", kv={"memory": 2**25, "block_size": 16}, **settings)


@pytest.fixture(scope="module")
def plain(tiny_model):
    with open_llm(tiny_model) as llm:
        yield llm


@pytest.fixture(scope="module")
def alone(plain):
    """Each prompt by itself, with nothing cached."""
    found = {}
    for name, sampling in (("greedy", GREEDY), ("seeded", SEEDED)):
        found[name] = []
        for prompt in prompts():
            assert plain.reset_prefix_cache()
            found[name] += ids(plain.generate([prompt], sampling))
    return found


def expected(alone, sampling):
    return alone["greedy" if sampling.greedy else "seeded"]


def test_greedy_equals_hugging_face(alone, tiny_hf_model):
    for prompt, ours in zip(prompts(), alone["greedy"], strict=True):
        known = list(prompt)
        with torch.inference_mode():
            for token in ours:
                logits = tiny_hf_model(torch.tensor([known])).logits[0, -1]
                assert int(logits.argmax()) == token
                known.append(token)


@MODES
def test_in_one_batch(plain, alone, sampling):
    assert ids(plain.generate(prompts(), sampling)) == expected(alone, sampling)


@MODES
def test_with_a_cached_prefix(plain, alone, sampling):
    plain.reset_prefix_cache()
    plain.generate(prompts(), sampling)
    again = plain.generate(prompts(), sampling)
    assert ids(again) == expected(alone, sampling)
    assert again[7].num_cached_tokens >= 48


@MODES
@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_in_chunks(tiny_model, alone, chunk, sampling):
    with open_llm(tiny_model, scheduling={"max_num_batched_tokens": chunk}) as llm:
        some = slice(3, None)
        assert ids(llm.generate(prompts()[some], sampling)) == expected(alone, sampling)[some]


@MODES
def test_when_preempted(tiny_model, alone, sampling):
    """A pool of 16 blocks cannot hold the batch, so sequences give way and come back."""
    bytes_per_block = 3 * 2 * 2 * 16 * 16 * 4
    settings = {"memory": 16 * bytes_per_block, "block_size": 16, "watermark": 0.0}
    with LLM(model=str(tiny_model), dtype="float32", max_model_len=200, kv=settings) as llm:
        assert ids(llm.generate(prompts(), sampling)) == expected(alone, sampling)
        assert llm.stats()["preemptions"] > 0
        assert llm.stats()["kv_bytes"] <= settings["memory"]


@MODES
def test_with_speculation(tiny_model, alone, sampling):
    with open_llm(tiny_model, speculation={"methods": ["ngram"]}) as llm:
        assert ids(llm.generate(prompts(), sampling)) == expected(alone, sampling)


class SometimesRight:
    """Drafts the true continuation with every fifth token wrong, in chains of 1 to 4."""

    needs = SpeculatorNeeds(max_draft_tokens=4)

    def __init__(self, outputs: list[list[int]]) -> None:
        self._whole = [prompt + out for prompt, out in zip(prompts(), outputs, strict=True)]

    def propose(self, rows):
        drafts = []
        for row in rows:
            known = list(row.token_ids)
            whole = next(one for one in self._whole if one[: len(known)] == known)
            length = 1 + len(known) % 4
            tokens = whole[len(known) : len(known) + length][: row.max_tokens]
            places = range(len(known), len(known) + len(tokens))
            drafts.append(
                Draft([(t + (at % 5 == 0)) % 256 for t, at in zip(tokens, places, strict=True)])
            )
        return drafts

    def observe(self, commits):
        pass

    def release(self, sequence_id):
        pass


@MODES
def test_with_drafts_right_and_wrong(tiny_model, alone, sampling):
    outputs = expected(alone, sampling)
    with open_llm(tiny_model, speculation={"methods": ["ngram"]}) as llm:
        llm._engine._speculation = SpeculationController(
            [("sometimes", SometimesRight(outputs))], 4, 259, lambda name, error: pytest.fail(error)
        )
        assert ids(llm.generate(prompts(), sampling)) == outputs
        stats = llm.stats()
    assert 0 < stats["spec_accepted_tokens"] < stats["spec_draft_tokens"]


def test_speculation_accepts_and_saves_steps(tiny_model):
    """A prompt whose greedy continuation repeats itself is drafted right."""
    prompt = [5] * 40
    greedy = dataclasses.replace(GREEDY, max_tokens=120)
    with open_llm(tiny_model) as llm:
        plain = ids(llm.generate([prompt], greedy))
        steps = llm.stats()["num_steps"]
    with open_llm(tiny_model, speculation={"methods": ["ngram"]}) as llm:
        assert ids(llm.generate([prompt], greedy)) == plain
        stats = llm.stats()
    assert stats["spec_accepted_tokens"] > 0
    assert stats["num_steps"] == steps - stats["spec_accepted_tokens"]


def test_choices_differ_and_do_not_depend_on_each_other(plain):
    four = dataclasses.replace(SEEDED, n=4)
    (result,) = plain.generate([prompts()[3]], four)
    texts = [tuple(choice.token_ids) for choice in result.outputs]
    assert len(set(texts)) == 4
    (single,) = plain.generate([prompts()[3]], SEEDED)
    assert tuple(single.outputs[0].token_ids) == texts[0]
