"""The demo model on a CUDA device, against the reference ids of float32."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import torch

from rtp_core import LLM, SamplingParams

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.model,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
REFERENCE = json.loads((Path(__file__).parents[1] / "data" / "smollm2_reference.json").read_text())[
    "prompts"
]
MARGIN = 0.02
"""Below this difference of the two best logits float32 itself may go either way."""
GREEDY = SamplingParams(temperature=0.0, max_tokens=32, ignore_eos=True)


def agreed(found, one):
    """Tokens that equal the reference up to the first step that may go either way."""
    for step, (token, right) in enumerate(zip(found, one["greedy_ids"], strict=True)):
        if one["top2_margin"][step] < MARGIN:
            return True
        if token != right:
            return False
    return True


def test_float32_gives_the_reference_ids():
    with LLM(model="demo", device="cuda", dtype="float32", max_model_len=2048) as llm:
        results = llm.generate([one["prompt_ids"] for one in REFERENCE], GREEDY)
        for result, one in zip(results, REFERENCE, strict=True):
            assert agreed(result.outputs[0].token_ids, one)


@pytest.fixture(scope="module")
def llm():
    with LLM(model="demo", device="cuda", max_model_len=4096) as engine:
        yield engine


def test_bfloat16_agrees_teacher_forced(llm):
    """Every step of every reference answer, all at once: captured programs, chunks, prefixes."""
    prompts, right = [], []
    for one in REFERENCE:
        for step, token in enumerate(one["greedy_ids"]):
            if one["top2_margin"][step] >= MARGIN:
                prompts.append(one["prompt_ids"] + one["greedy_ids"][:step])
                right.append(token)
    results = llm.generate(prompts, SamplingParams(temperature=0.0, max_tokens=1))
    hits = sum(
        result.outputs[0].token_ids[0] == token
        for result, token in zip(results, right, strict=True)
    )
    assert hits / len(right) >= 0.95


def test_long_texts_and_many_at_once_read_well(llm):
    """Answers of a batch are those of each alone, up to near-ties of bfloat16."""
    prompts = [one["prompt_ids"] * (1 + number % 4) for number, one in enumerate(REFERENCE * 8)]
    together = llm.generate(prompts, GREEDY)
    same = 0
    for prompt, result in list(zip(prompts, together, strict=True))[:12]:
        (alone,) = llm.generate([prompt], GREEDY)
        same += alone.outputs[0].token_ids[:8] == result.outputs[0].token_ids[:8]
    assert same >= 9


def test_seeded_draws_repeat(llm):
    drawn = SamplingParams(
        temperature=1.5, top_k=400, seed=11, max_tokens=24, logprobs=3, n=2, ignore_eos=True
    )
    prompt = REFERENCE[0]["prompt_ids"]
    first, second = (llm.generate([prompt], drawn)[0] for _ in range(2))
    assert [one.token_ids for one in first.outputs] == [one.token_ids for one in second.outputs]
    assert first.outputs[0].token_ids != first.outputs[1].token_ids
    drawn_first = first.outputs[0].logprobs[0]
    assert drawn_first.logprob <= 0.0
    assert len(drawn_first.top) == 3


def test_penalties_and_bias_reach_the_device(llm):
    prompt = REFERENCE[0]["prompt_ids"]
    forced = SamplingParams(
        temperature=0.0, max_tokens=4, logit_bias={1234: 100.0}, ignore_eos=True
    )
    (result,) = llm.generate([prompt], forced)
    assert list(result.outputs[0].token_ids) == [1234] * 4
    shy = SamplingParams(
        temperature=0.0, max_tokens=40, frequency_penalty=2.0, presence_penalty=2.0, ignore_eos=True
    )
    (result,) = llm.generate([prompt], shy)
    ids = result.outputs[0].token_ids
    assert len(set(ids)) > 30


def test_drafts_change_nothing(llm):
    prompt = REFERENCE[1]["prompt_ids"]
    (plain,) = llm.generate([prompt], GREEDY)
    with LLM(
        model="demo", device="cuda", max_model_len=4096, speculation={"methods": ["ngram"]}
    ) as one:
        (drafted,) = one.generate([prompt], GREEDY)
    assert drafted.outputs[0].token_ids[:8] == plain.outputs[0].token_ids[:8]


def test_it_answers_over_http():
    server = subprocess.Popen(
        [sys.executable, "-m", "rtp_core", "serve", "demo", "--device", "cuda", "--port", "8321"]
    )
    try:
        began = time.monotonic()
        while time.monotonic() - began < 120:
            try:
                with urllib.request.urlopen("http://127.0.0.1:8321/health", timeout=2) as answer:
                    if answer.status == 200:
                        break
            except OSError:
                time.sleep(0.1)
        print(f"ready after {time.monotonic() - began:.1f} s")
        body = {"model": "demo", "prompt": "2, 4, 6, 8, 10,", "max_tokens": 8, "temperature": 0}
        request = urllib.request.Request(
            "http://127.0.0.1:8321/v1/completions",
            data=json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = json.load(answer)["choices"][0]["text"]
        assert "12" in text
    finally:
        server.terminate()
        server.wait(30)
