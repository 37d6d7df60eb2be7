"""model.cpu_weights through the whole engine."""

from __future__ import annotations

import pytest

from rtp_core import LLM, SamplingParams
from rtp_core.errors import ConfigError

ASK = SamplingParams(temperature=0.0, max_tokens=1, logprobs=5)


def weights_row(llm: LLM) -> dict:
    return next(one for one in llm.explain()["features"] if one["role"] == "weights")


@pytest.mark.model
@pytest.mark.parametrize("setting", ["auto", "bf16", "int8"])
def test_every_form_agrees_with_float32(demo_model, smollm2_reference, setting):
    prefixes, wanted = [], []
    for one in smollm2_reference:
        whole = one["prompt_ids"] + one["greedy_ids"]
        ends = [at for at in range(0, 32, 3) if one["top2_margin"][at] > 0.3]
        prefixes += [whole[: len(one["prompt_ids"]) + at] for at in ends]
        wanted += [one["greedy_ids"][at] for at in ends]
    with LLM(model=str(demo_model), cpu_weights=setting) as llm:
        results = llm.generate(prefixes, ASK)
        form = weights_row(llm)
    same = [r.outputs[0].token_ids[0] == t for r, t in zip(results, wanted, strict=True)]
    assert sum(same) / len(same) >= 0.95
    if setting == "auto":
        assert form["offer"] == "bfloat16 + int4 and int8"


def test_int4_of_a_bfloat16_checkpoint_runs_and_says_so(tiny_model):
    with LLM(model=str(tiny_model), cpu_weights="int4") as llm:
        (result,) = llm.generate("hello", SamplingParams(max_tokens=4, ignore_eos=True))
        assert len(result.outputs[0].token_ids) == 4
        assert weights_row(llm)["offer"] == "bfloat16 + int4"


def test_codes_beside_float32_are_refused(tiny_model):
    with pytest.raises(ConfigError, match="cpu_weights: int4 needs bfloat16"):
        LLM(model=str(tiny_model), dtype="float32", cpu_weights="int4")


def test_float32_keeps_no_codes(tiny_model):
    with LLM(model=str(tiny_model), dtype="float32") as llm:
        assert weights_row(llm)["offer"] == "float32"
