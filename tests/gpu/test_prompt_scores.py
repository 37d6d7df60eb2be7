"""Scored prompts and barred words on a CUDA device, beside rows that decode."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rtp_core import LLM, SamplingParams

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.model,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
PLAIN = SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True)


@pytest.mark.parametrize("alternatives", [0, 3])
def test_scores_agree_with_those_of_generation(alternatives):
    generating = SamplingParams(temperature=0.0, max_tokens=60, ignore_eos=True, logprobs=0)
    scoring = SamplingParams(temperature=0.0, max_tokens=2, prompt_logprobs=alternatives)
    with LLM("demo", device="cuda", max_model_len=2048) as llm:
        prompts = [f"Number {number} is" for number in range(8)]
        answers = llm.generate(prompts, generating)
        texts = [[*one.prompt_token_ids, *one.outputs[0].token_ids] for one in answers]
        mixed = [part for text in texts for part in (text, text[:9])]
        again = llm.generate(mixed, [scoring, PLAIN] * len(texts))
    for answer, text, scored in zip(answers, texts, again[::2], strict=True):
        entries = scored.prompt_logprobs
        assert entries is not None
        assert [one.token_id for one in entries[1:]] == text[1:]
        assert all(len(one.top) == alternatives for one in entries[1:])
        generated = [one.logprob for one in answer.outputs[0].logprobs]
        scores = [one.logprob for one in entries[-60:]]
        errors = [abs(a - b) for a, b in zip(scores, generated, strict=True)]
        # Prompts and single tokens take other kernels, each rounding to bfloat16 in its own way.
        assert max(errors) < 0.3
        assert sum(errors) / len(errors) < 0.05
    assert all(len(one.outputs[0].token_ids) == 40 for one in again[1::2])


def test_words_are_barred_and_tokens_allowed():
    letters = "abcdefghijklmnopqrstuvwxyz"
    with LLM("demo", device="cuda", max_model_len=2048) as llm:
        free = llm.generate("Hello", PLAIN)[0].outputs[0].token_ids
        allowed = tuple(sorted(set(free))[:3])
        params = [
            replace(PLAIN, bad_words=tuple(letters)),
            SamplingParams(temperature=1.0, seed=1, max_tokens=40, allowed_token_ids=allowed),
            PLAIN,
        ]
        barred, few, again = llm.generate(["Hello"] * 3, params)
        banned = {llm.tokenizer.token_text(token) for token in barred.outputs[0].token_ids}
    assert not banned & {f"{space}{letter}" for space in ("", " ") for letter in letters}
    assert set(few.outputs[0].token_ids) <= set(allowed)
    assert again.outputs[0].token_ids == free
