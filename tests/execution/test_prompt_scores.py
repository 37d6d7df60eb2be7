"""Log-probabilities of prompts: those of the model, whatever steps and the cache do."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rtp_core import SamplingParams
from rtp_core.api import FinishReason, PlanRow, Request, SequenceStart
from rtp_core.engine.assemble import build_engine
from rtp_core.execution import prompt_scores
from rtp_core.execution.prompt_scores import PromptScores

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
sys.path.insert(0, str(Path(__file__).parent))
from device_world import configured, on_a_device
from small_models import random_ids, random_model

SCORED = SamplingParams(temperature=0.0, max_tokens=3, ignore_eos=True, prompt_logprobs=2)
LENGTHS = (1, 2, 17, 63, 64, 65, 150)


@pytest.fixture(scope="module")
def model():
    return random_model("LlamaForCausalLM", "llama3")


@pytest.fixture(scope="module")
def path(model, save_model):
    return save_model(model)


def run(engine, requests):
    """Scores and tokens by (request, choice); checks that there is one event a step."""
    scores, tokens, ends = {}, {}, {}
    for request in requests:
        engine.submit(request)
    for _ in range(3000):
        if not engine.has_work:
            return scores, tokens, ends
        seen = set()
        for event in engine.step():
            key = event.request_id, event.choice
            assert key not in seen
            seen.add(key)
            scores.setdefault(key, []).extend(event.prompt_logprobs)
            tokens.setdefault(key, []).extend(event.token_ids)
            if event.finish_reason is not None:
                ends[key] = event.finish_reason
    raise AssertionError("still busy")


def expected(model, prompt):
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[0].float()
    return torch.log_softmax(logits, dim=-1)


def check(model, prompt, scores):
    assert [one.token_id for one in scores] == list(prompt[1:])
    reference = expected(model, prompt)
    for place, one in enumerate(scores):
        row = reference[place]
        assert one.logprob == pytest.approx(float(row[one.token_id]), abs=2e-4)
        best = row.topk(2)
        assert [value for _, value in one.top] == pytest.approx(best.values.tolist(), abs=2e-4)
        assert all(abs(float(row[token]) - value) < 2e-4 for token, value in one.top)


def worlds(path):
    yield build_engine(configured(path))
    yield on_a_device(build_engine(configured(path)), configured(path))


@pytest.mark.parametrize("world", [0, 1])
def test_scores_are_the_models(model, path, world):
    engine = list(worlds(path))[world]
    prompts = [tuple(random_ids(length, seed=length)) for length in LENGTHS]
    requests = [Request(f"r{at}", prompt, SCORED) for at, prompt in enumerate(prompts)]
    plain = [
        Request(f"p{at}", one, replace(SCORED, prompt_logprobs=None))
        for at, one in enumerate(prompts)
    ]
    _, without, _ = run(engine, plain)
    for _ in range(2):  # once more, when every prompt is cached
        scores, tokens, ends = run(engine, requests)
        for at, prompt in enumerate(prompts):
            check(model, prompt, scores[f"r{at}", 0])
            assert tokens[f"r{at}", 0] == without[f"p{at}", 0]
            assert ends[f"r{at}", 0] is FinishReason.LENGTH
    assert engine._scheduler.cache.num_blocks_used == 0


@pytest.mark.parametrize("world", [0, 1])
def test_choices_share_a_prompt_and_the_first_has_its_scores(model, path, world):
    engine = list(worlds(path))[world]
    prompt = tuple(random_ids(40, seed=3))
    drawn = replace(SCORED, temperature=1.0, seed=5, n=3)
    beside = Request("b", tuple(random_ids(100, seed=8)), replace(SCORED, prompt_logprobs=None))
    scores, tokens, _ = run(engine, [beside, Request("r", prompt, drawn)])
    check(model, prompt, scores["r", 0])
    assert scores["r", 1] == scores["r", 2] == scores["b", 0] == []
    assert all(len(tokens["r", choice]) == 3 for choice in range(3))


@pytest.mark.parametrize("world", [0, 1])
def test_a_prompt_may_be_all_that_is_wanted(model, path, world):
    engine = list(worlds(path))[world]
    prompt = tuple(random_ids(70, seed=4))
    only = replace(SCORED, max_tokens=0, n=2)
    scores, tokens, ends = run(engine, [Request("r", prompt, only)])
    check(model, prompt, scores["r", 0])
    assert tokens == {("r", 0): [], ("r", 1): []}
    assert set(ends.values()) == {FinishReason.LENGTH}


def test_scores_agree_with_those_of_generation(path):
    engine = build_engine(configured(path))
    prompt = tuple(random_ids(20, seed=9))
    generating = SamplingParams(temperature=0.0, max_tokens=30, ignore_eos=True, logprobs=0)
    engine.submit(Request("g", prompt, generating))
    entries = []
    while engine.has_work:
        for event in engine.step():
            entries.extend(event.logprobs or ())
    whole = prompt + tuple(one.token_id for one in entries)
    scores, _, _ = run(engine, [Request("s", whole, replace(SCORED, max_tokens=1))])
    again = scores["s", 0][len(prompt) - 1 :]
    assert [one.token_id for one in again] == [one.token_id for one in entries]
    values = [one.logprob for one in entries]
    assert [one.logprob for one in again] == pytest.approx(values, abs=1e-3)


@pytest.mark.parametrize("world", [0, 1])
def test_a_preemption_repeats_no_score(model, path, world, monkeypatch):
    engine = list(worlds(path))[world]
    prompt = tuple(random_ids(150, seed=6))
    engine.submit(Request("r", prompt, SCORED))
    scores, planner = [], engine._scheduler._planner
    steps = 0
    while engine.has_work:
        steps += 1
        if steps == 3 and len(engine._scheduler._batch):
            planner._preempt({})
        for event in engine.step():
            scores.extend(event.prompt_logprobs)
        assert steps < 500
    assert planner.counters.preemptions == 1
    check(model, prompt, scores)


def test_logits_come_in_slices(monkeypatch):
    monkeypatch.setattr(prompt_scores, "MAX_ELEMENTS", 25)
    scorer = PromptScores(10)
    prompt = tuple(range(9))
    scorer.start(SequenceStart("s", SCORED, 0, 0, prompt, 9))
    scorer.start(SequenceStart("other", SCORED, 0, 1, prompt, 9))
    rows = [
        PlanRow("other", prompt[:2], 0, 0, False, ()),
        PlanRow("s", prompt[1:8], 1, 0, False, ()),
    ]
    (span,) = scorer.spans(rows)
    assert (span.first, span.targets) == (2, prompt[2:9])
    sizes = []

    def logits(hidden):
        sizes.append(len(hidden))
        return torch.cat((hidden, torch.full((len(hidden), 6), 99.0)), dim=1)  # padding

    hidden = torch.randn(9, 10)
    found = scorer.score([span], hidden, logits)()["s"]
    assert sizes == [2, 2, 2, 1]
    reference = torch.log_softmax(hidden[2:9], dim=-1)
    for place, one in enumerate(found):
        assert one.logprob == pytest.approx(float(reference[place, one.token_id]), abs=1e-5)
    scorer.release("s")
    assert scorer.spans(rows) == []
