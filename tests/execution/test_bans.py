"""What may not be drawn never is, and nothing else changes."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from rtp_core import LLM, SamplingParams
from rtp_core.api import Request, StructuredOutput
from rtp_core.engine.assemble import build_engine
from rtp_core.errors import RequestError

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
sys.path.insert(0, str(Path(__file__).parent))
from device_world import answers, configured, on_a_device
from small_models import random_ids, random_model

FREE = SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True)
DRAWN = SamplingParams(temperature=1.0, seed=3, max_tokens=40, ignore_eos=True)
PROMPT = tuple(random_ids(20, seed=2))


@pytest.fixture(scope="module")
def path(save_model):
    return save_model(random_model("LlamaForCausalLM", "llama3"))


def tokens_of(engine, sampling, name="r"):
    (tokens,) = answers(engine, [Request(name, PROMPT, sampling)]).values()
    return tokens


@pytest.fixture(params=[0, 1], ids=["plain", "device"])
def engine(request, path):
    built = build_engine(configured(path))
    return on_a_device(built, configured(path)) if request.param else built


@pytest.mark.parametrize("sampling", [FREE, DRAWN], ids=["greedy", "drawn"])
def test_only_allowed_tokens_are_drawn(engine, sampling):
    allowed = (3, 50, 99, 100)
    tokens = tokens_of(engine, replace(sampling, allowed_token_ids=allowed))
    assert set(tokens) <= set(allowed)
    assert len(tokens) == 40


@pytest.mark.parametrize("sampling", [FREE, DRAWN], ids=["greedy", "drawn"])
def test_bad_sequences_never_come(engine, sampling):
    banned: list[tuple[int, ...]] = []
    for turn in range(4):
        tokens = tokens_of(engine, replace(sampling, bad_token_ids=tuple(banned)), f"r{turn}")
        pairs = set(pairwise(tokens))
        assert not pairs & set(banned)
        assert not set(tokens) & {one[0] for one in banned if len(one) == 1}
        banned += [(tokens[5], tokens[6]), (tokens[20],)]


def test_the_prompt_begins_no_bad_sequence(engine):
    free = tokens_of(engine, FREE, "free")
    again = tokens_of(engine, replace(FREE, bad_token_ids=((PROMPT[-1], free[0]),)), "again")
    assert again[0] == free[0]


def test_bans_that_do_not_touch_an_answer_change_nothing(engine):
    free = tokens_of(engine, DRAWN, "free")
    unused = next(token for token in range(3, 200) if token not in free)
    assert tokens_of(engine, replace(DRAWN, bad_token_ids=((unused,),)), "again") == free


def test_bans_and_a_grammar_hold_together(engine):
    choices = StructuredOutput.of_choices(["yes", "no"])
    free = replace(FREE, structured=choices, ignore_eos=False)
    first = tokens_of(engine, free, "free")
    barred = replace(free, bad_token_ids=((first[0],),))
    assert tokens_of(engine, barred, "barred")[0] != first[0]


def test_a_preempted_sequence_remembers_what_it_said(path):
    engine = build_engine(configured(path))
    free = tokens_of(engine, FREE, "free")
    pair = free[7], free[8]
    sampling = replace(FREE, bad_token_ids=(pair,))
    expected = tokens_of(engine, sampling, "whole")
    assert expected[:8] == free[:8]
    engine.submit(Request("r", PROMPT, sampling))
    tokens, steps = [], 0
    while engine.has_work:
        steps += 1
        if len(tokens) == 8:
            engine._scheduler._planner._preempt({})
        for event in engine.step():
            tokens.extend(event.token_ids)
        assert steps < 300
    assert tokens == expected


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"allowed_token_ids": ()}, "allowed_token_ids"),
        ({"allowed_token_ids": (-1,)}, "allowed_token_ids"),
        ({"bad_words": ("",)}, "bad_words"),
        ({"bad_words": ("x",) * 129}, "bad_words"),
        ({"bad_token_ids": ((),)}, "bad_token_ids"),
        ({"prompt_logprobs": 21}, "prompt_logprobs"),
    ],
)
def test_bounds(fields, param):
    with pytest.raises(RequestError) as refused:
        SamplingParams(**fields)
    assert refused.value.param == param


def test_ids_outside_the_vocabulary_are_refused(path):
    engine = build_engine(configured(path))
    for fields in ({"allowed_token_ids": (10**6,)}, {"bad_token_ids": ((3, 10**6),)}):
        with pytest.raises(RequestError):
            engine.submit(Request("r", PROMPT, replace(FREE, **fields)))


def test_bad_words_and_prompt_scores_in_python(path):
    with LLM(model=str(path), dtype="float32") as llm:
        letters = "abcdefghijklmnopqrstuvwxyz"
        sampling = replace(FREE, bad_words=tuple(letters), prompt_logprobs=1)
        assert set(letters) & set(llm.generate("Hi", FREE)[0].outputs[0].text)
        (output,) = llm.generate("Hi", sampling)
        assert not set(letters) & set(output.outputs[0].text)
        assert output.prompt_logprobs is not None
        assert len(output.prompt_logprobs) == len(output.prompt_token_ids)
        assert output.prompt_logprobs[0] is None
        assert len(output.prompt_logprobs[1].top) == 1
