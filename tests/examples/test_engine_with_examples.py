"""The examples inside the engine: same output, fewer steps, fair admission."""

from __future__ import annotations

import time

import pytest

from rtp_core import LLM, SamplingParams
from rtp_core.api import Request
from rtp_core.config.read import load_config
from rtp_core.engine.assemble import build_engine

QUESTIONS = (
    "List the planets of the solar system, one a line.",
    "Write a Python function that adds two numbers.",
)
GREEDY = SamplingParams(temperature=0.0, max_tokens=32)
SAMPLED = SamplingParams(temperature=0.8, seed=11, max_tokens=32)


def chats():
    return [[{"role": "user", "content": question}] for question in QUESTIONS]


def ids(results):
    return [one.outputs[0].token_ids for one in results]


@pytest.fixture(scope="module")
def plain(demo_model):
    """Outputs and steps without speculation, greedy and sampled."""
    with LLM(model="demo", dtype="float32", max_model_len=512) as llm:
        greedy = ids(llm.chat(chats(), GREEDY))
        steps = llm.stats()["num_steps"]
        return {"greedy": greedy, "steps": steps, "sampled": ids(llm.chat(chats(), SAMPLED))}


def run(method, passes):
    """A model with one drafter; the outputs of each pass, and its counters around them."""
    speculation = {"methods": [method], "max_draft_tokens": 4}
    with LLM(model="demo", dtype="float32", max_model_len=512, speculation=speculation) as llm:
        outputs, stats = [], [llm.stats()]
        for sampling in passes:
            outputs.append(ids(llm.chat(chats(), sampling)))
            stats.append(llm.stats())
        return outputs, stats, llm.explain()["features"]


def grown(stats, counter):
    """By how much the last pass moved a counter."""
    return stats[-1][counter] - stats[-2][counter]


@pytest.fixture(scope="module")
def recycled(demo_model, installed):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(installed))
        yield run("recycle", (GREEDY, SAMPLED, GREEDY))


@pytest.mark.model
def test_recycling_changes_no_token(plain, recycled):
    outputs, _, features = recycled
    assert outputs == [plain["greedy"], plain["sampled"], plain["greedy"]]
    (drafter,) = (one for one in features if one["offer"] == "recycle")
    assert drafter["on"]
    assert drafter["plugin"] == "spec_recycle"


@pytest.mark.model
def test_what_was_generated_once_takes_few_steps_the_second_time(plain, recycled):
    _, stats, _ = recycled
    assert grown(stats, "spec_accepted_tokens") > 0.6 * sum(map(len, plain["greedy"]))
    assert grown(stats, "num_steps") < 0.5 * plain["steps"]


@pytest.mark.model
def test_prompt_lookup_cannot_know_what_recycling_learnt(recycled):
    _, ngram, _ = run("ngram", (GREEDY,))
    _, recycle, _ = recycled
    accepted = "spec_accepted_tokens"
    assert grown(recycle, accepted) > 1.5 * grown(ngram, accepted)


def flooded(model, **settings):
    """Order in which requests finish: ten of a busy tenant, then two of a light one."""
    overrides = {"model": str(model), "dtype": "float32", "kv": {"memory": 2**22}, **settings}
    engine = build_engine(load_config(overrides=overrides))
    sampling = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
    for number in range(10):
        prompt = tuple(range(10 + number, 40 + number))
        engine.submit(Request(f"busy {number}", prompt, sampling, time.monotonic(), tenant="busy"))
    for name in ("light", "light again"):
        engine.submit(Request(name, (1, 2, 3), sampling, time.monotonic(), tenant="light"))
    finished, tokens = [], {}
    while engine.has_work:
        for event in engine.step():
            tokens.setdefault(event.request_id, []).extend(event.token_ids)
            if event.finish_reason is not None:
                finished.append(event.request_id)
    engine.close()
    return finished, tokens


def test_a_light_tenant_is_admitted_before_the_flood_ends(importable, tiny_model):
    two_at_once = {"max_num_seqs": 2}
    fcfs, expected = flooded(tiny_model, scheduling=two_at_once)
    fair, tokens = flooded(tiny_model, scheduling={**two_at_once, "policy": "wfq"})
    assert fcfs.index("light") == 10
    assert fair.index("light") <= 2
    assert fair.index("light again") <= 4
    assert tokens == expected


def test_a_weight_decides_who_is_admitted_again(importable, tiny_model):
    one_at_once = {"max_num_seqs": 1, "policy": "wfq"}
    equal, _ = flooded(tiny_model, scheduling=one_at_once)
    heavy = {"wfq": {"weights": ["busy=100"]}}
    weighted, _ = flooded(tiny_model, scheduling=one_at_once, plugins=heavy)
    assert equal.index("light again") <= 4
    assert weighted.index("light again") == 11
