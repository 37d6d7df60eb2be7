from __future__ import annotations

import math

import pytest

from rtp_core.api import SamplingParams
from rtp_core.errors import RequestError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 0),
        ("n", 129),
        ("n", True),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", math.nan),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_k", -2),
        ("min_p", 1.5),
        ("presence_penalty", 2.5),
        ("frequency_penalty", math.inf),
        ("repetition_penalty", 0.0),
        ("seed", 2**63),
        ("seed", 1.5),
        ("max_tokens", -1),
        ("min_tokens", -1),
        ("logprobs", 21),
        ("stop", ("",)),
        ("stop", ("a",) * 5),
        ("stop_token_ids", (-1,)),
        ("logit_bias", {1: 101.0}),
        ("logit_bias", {1: math.nan}),
    ],
)
def test_out_of_bounds_names_the_field(field, value):
    with pytest.raises(RequestError) as caught:
        SamplingParams(**{field: value})
    assert caught.value.param == field
    assert caught.value.status == 400


def test_min_tokens_cannot_exceed_max_tokens():
    with pytest.raises(RequestError) as caught:
        SamplingParams(max_tokens=2, min_tokens=3)
    assert caught.value.param == "min_tokens"


def test_one_stop_string_is_a_tuple_of_one():
    assert SamplingParams(stop="end").stop == ("end",)  # pyright: ignore[reportArgumentType]


def test_greedy_and_penalties_are_recognised():
    assert SamplingParams(temperature=0).greedy
    assert not SamplingParams().greedy
    assert SamplingParams(repetition_penalty=1.1).has_penalties
    assert not SamplingParams().has_penalties
