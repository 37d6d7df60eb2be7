"""Which constraint a body asks for, and what is wrong with one that asks for nothing."""

from __future__ import annotations

import pytest

from rtp_core.errors import RequestError
from rtp_core.server.schema.fields import StructuredOutputs
from rtp_core.server.structured import _one_of


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"choice": []}, "1 to 4096 strings"),
        ({"regex": ""}, "without a text"),
        ({"grammar": ""}, "without a text"),
        ({"json": ""}, "a JSON object"),
        ({}, "exactly one"),
        ({"json_object": False}, "exactly one"),
        ({"choice": [], "regex": "a"}, "exactly one"),
    ],
)
def test_an_empty_constraint_is_refused_for_what_it_is(fields, told):
    with pytest.raises(RequestError, match=told):
        _one_of(StructuredOutputs(**fields))


def test_a_false_flag_is_no_constraint():
    asked = _one_of(StructuredOutputs(regex="a+", json_object=False))
    assert (asked.kind, asked.text) == ("regex", "a+")
    assert _one_of(StructuredOutputs(json={})).text == "{}"
