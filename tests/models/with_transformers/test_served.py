"""Whole engine against Hugging Face: packed, in chunks of 7, preempted, with cached prefixes."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import zoo

from rtp_core import LLM, SamplingParams
from rtp_core.config.read import load_config
from rtp_core.engine.prepare import prepare

NUM_TOKENS = 17
BLOCKS = 7
"""Less than the requests together need and more than the longest: some are preempted."""
WINDOWS_ONLY = {"phi3_window"}
"""Sequences drop blocks out of sight and hold few; the others wait for those instead."""


def prompts() -> list[list[int]]:
    noise = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (size,), generator=noise).tolist() for size in (5, 33, 1, 18)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """name -> (model, directory), made once."""
    made = {}

    def get(name: str):
        if name not in made:
            model = zoo.make(name)
            made[name] = model, zoo.save(model, tmp_path_factory.mktemp(name))
        return made[name]

    return get


def cache_of(directory: Path, num_blocks: int) -> dict:
    prepared = prepare(load_config(overrides={"model": str(directory), "dtype": "float32"}))
    block_bytes = sum(prepared.store.block_bytes(one, 16) for one in prepared.spec.kv_groups)
    return {"memory": num_blocks * block_bytes}


def sampling(**changes) -> SamplingParams:
    settings = {"temperature": 0.0, "max_tokens": NUM_TOKENS, "ignore_eos": True}
    return SamplingParams(**{**settings, **changes})


@pytest.mark.parametrize("name", zoo.SERVED)
def test_tokens_and_logits_equal_hugging_face(saved, name):
    model, directory = saved(name)
    settings = {
        "kv": cache_of(directory, BLOCKS),
        "scheduling": {"max_num_batched_tokens": 7},
    }
    with LLM(model=str(directory), dtype="float32", **settings) as llm:
        first = llm.generate(prompts(), sampling(logprobs=3))
        if name not in WINDOWS_ONLY:
            assert llm.stats()["preemptions"] > 0
        before = llm.stats()["prefix_hits"]
        alone = [llm.generate([prompts()[1]], sampling())[0] for _ in range(2)]
        assert llm.stats()["prefix_hits"] > before
    for ids, result in zip(prompts(), first, strict=True):
        expected = zoo.greedy(model, ids, NUM_TOKENS)
        assert list(result.outputs[0].token_ids) == expected
        logprobs = zoo.logprobs(model, ids + expected)[len(ids) - 1 : -1]
        for row, found in zip(logprobs, result.outputs[0].logprobs, strict=True):
            for token, value in found.top:
                assert value == pytest.approx(float(row[token]), abs=2e-4)
    for result in alone:
        assert result.outputs[0].token_ids == first[1].outputs[0].token_ids


@pytest.mark.parametrize("name", ["phi3", "gpt2", "cohere2"])
def test_float32_has_the_same_bits_in_any_company(saved, name):
    _, directory = saved(name)
    seen = []
    for scheduling in ({"max_num_batched_tokens": 7}, {"max_num_seqs": 1}):
        kv = {"memory": 2**22, "prefix_caching": False}
        with LLM(model=str(directory), dtype="float32", kv=kv, scheduling=scheduling) as llm:
            results = llm.generate(prompts(), sampling(logprobs=3))
        seen.append([[one.top for one in result.outputs[0].logprobs] for result in results])
    assert seen[0] == seen[1]


def test_bfloat16_is_served(saved):
    model, directory = saved("olmo2")
    with LLM(model=str(directory), kv={"memory": 2**22}) as llm:
        (result,) = llm.generate([prompts()[1]], sampling(logprobs=1))
    expected = zoo.logprobs(model, prompts()[1])[-1]
    token, value = result.outputs[0].logprobs[0].top[0]
    assert value == pytest.approx(float(expected[token]), abs=0.3)


def test_drafts_are_verified_through_transformers(saved):
    """Speculation changes nothing but the number of steps."""
    model, directory = saved("starcoder2")
    ids = [7, 8, 9] * 6
    settings = {"kv": {"memory": 2**22}, "speculation": {"methods": ["ngram"]}}
    with LLM(model=str(directory), dtype="float32", **settings) as llm:
        (result,) = llm.generate([ids], sampling(max_tokens=100))
        assert llm.stats()["spec_accepted_tokens"] > 0
    assert list(result.outputs[0].token_ids) == zoo.greedy(model, ids, 100)


def test_two_engines_in_two_threads_keep_apart(saved):
    names = ("phi3", "gpt2")
    expected = {name: zoo.greedy(saved(name)[0], prompts()[1], NUM_TOKENS) for name in names}
    engines = {
        name: LLM(model=str(saved(name)[1]), dtype="float32", kv={"memory": 2**22})
        for name in names
    }
    found: dict[str, list] = {name: [] for name in names}

    def run(name: str) -> None:
        for _ in range(3):
            (result,) = engines[name].generate([prompts()[1]], sampling())
            found[name].append(list(result.outputs[0].token_ids))

    threads = [threading.Thread(target=run, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in names:
        engines[name].close()
        assert found[name] == [expected[name]] * 3


def test_explain_says_why_transformers_serves(saved):
    _, directory = saved("phi3")
    with LLM(model=str(directory), dtype="float32", kv={"memory": 2**22}) as llm:
        report = llm.explain()
    (feature,) = (one for one in report["features"] if one["role"] == "model")
    assert (feature["offer"], feature["plugin"]) == ("transformers", "core.models")
    assert feature["reason"] == "no native family for Phi3ForCausalLM; transformers backend"
    assert report["model"]["architecture"] == "Phi3ForCausalLM"
    parameters = sum(one.numel() for one in saved("phi3")[0].parameters())
    assert report["memory"]["weights_bytes"] == 4 * parameters
