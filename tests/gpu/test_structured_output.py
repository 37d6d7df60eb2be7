"""Grammars on a CUDA device: pipelined and drafting, beside rows without one."""

from __future__ import annotations

import json
import re

import pytest
import torch

from rtp_core import LLM, SamplingParams, StructuredOutput

pytest.importorskip("llguidance")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.model,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
OBJECT = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}, "s": {"enum": ["a"]}},
    "required": ["n", "s"],
    "additionalProperties": False,
}
PATTERN = StructuredOutput("regex", "[a-f]{3,9}-[0-9]{2}")
CHOICE = StructuredOutput.of_choices(["yes", "no", "👩‍👩‍👧 family"])
KINDS = (PATTERN, CHOICE, StructuredOutput.of_schema(OBJECT), None)


def sampling(number):
    return SamplingParams(
        structured=KINDS[number % 4],
        temperature=1.0,
        seed=number,
        n=2,
        max_tokens=60,
        ignore_eos=KINDS[number % 4] is None,
        logprobs=1 if number % 3 == 0 else None,
        presence_penalty=0.5 if number % 5 == 0 else 0.0,
    )


@pytest.mark.parametrize("methods", [[], ["ngram"]])
def test_rows_keep_their_constraints(methods):
    with LLM("demo", device="cuda", max_model_len=2048, speculation={"methods": methods}) as llm:
        prompts = [f"Hello {number}" for number in range(24)]
        answers = llm.generate(prompts, [sampling(number) for number in range(24)])
        stats = llm.stats()["grammars"]
    for number, answer in enumerate(answers):
        for one in answer.outputs:
            match number % 4:
                case 0:
                    assert re.fullmatch(PATTERN.text, one.text)
                case 1:
                    assert one.text in CHOICE.choices
                case 2:
                    assert set(json.loads(one.text)) == {"n", "s"}
                case _:
                    assert len(one.token_ids) == 60
    assert stats["masks"] > 0
