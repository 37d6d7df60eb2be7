"""Structured output as a value: canonical, bounded, and every refusal names the field."""

from __future__ import annotations

import json
import math

import pytest

from rtp_core.api import SamplingParams, StructuredOutput
from rtp_core.api.structured import (
    MAX_NESTING,
    MAX_REGEX_BYTES,
    MAX_STRUCTURED_BYTES,
    MAX_STRUCTURED_CHOICES,
)
from rtp_core.errors import RequestError


def nested(depth: int) -> dict:
    schema: dict = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def test_the_same_schema_as_data_and_as_text_is_one_object():
    schema = {"type": "object", "properties": {"é": {"type": "integer"}}}
    as_data = StructuredOutput.of_schema(schema)
    assert as_data == StructuredOutput.of_schema(json.dumps(schema, indent=4))
    assert hash(as_data) == hash(StructuredOutput.of_schema(schema))
    assert json.loads(as_data.text) == schema


def test_choices_keep_their_order_and_text():
    choices = ("b", 'a"\n', "👩‍👩‍👧")
    assert StructuredOutput.of_choices(choices).choices == choices


@pytest.mark.parametrize(
    "make",
    [
        lambda: StructuredOutput("xml", "a"),
        lambda: StructuredOutput("regex"),
        lambda: StructuredOutput("json_object", "{}"),
        lambda: StructuredOutput("regex", "a" * (MAX_REGEX_BYTES + 1)),
        lambda: StructuredOutput("regex", "é" * (MAX_REGEX_BYTES // 2 + 1)),
        lambda: StructuredOutput("regex", "(" * (MAX_NESTING + 1) + "a" + ")" * (MAX_NESTING + 1)),
        lambda: StructuredOutput("grammar", "x" * (MAX_STRUCTURED_BYTES + 1)),
        lambda: StructuredOutput("regex", "\ud800"),
        lambda: StructuredOutput("choice", "no json"),
        lambda: StructuredOutput("choice", '["a",1]'),
        lambda: StructuredOutput("choice", '[""]'),
        lambda: StructuredOutput("choice", "[" * 100_000),
        lambda: StructuredOutput.of_choices([]),
        lambda: StructuredOutput.of_choices("ab"),
        lambda: StructuredOutput.of_choices(["a"] * (MAX_STRUCTURED_CHOICES + 1)),
        lambda: StructuredOutput.of_schema("{"),
        lambda: StructuredOutput.of_schema("[1]"),
        lambda: StructuredOutput.of_schema({"const": math.nan}),
        lambda: StructuredOutput.of_schema({"const": object()}),
        lambda: StructuredOutput.of_schema(nested(MAX_NESTING)),
        lambda: StructuredOutput.of_schema(nested(20_000)),
        lambda: StructuredOutput.of_schema('{"items":' * 100_000),
        lambda: StructuredOutput.of_schema({"enum": ["x" * 2**20]}),
    ],
)
def test_what_breaks_a_bound_is_refused_naming_the_field(make):
    with pytest.raises(RequestError) as caught:
        make()
    assert caught.value.param == "structured_outputs"
    assert caught.value.status == 400


def test_brackets_in_strings_and_escapes_do_not_nest():
    StructuredOutput.of_schema({"const": "[{(" * 100})
    StructuredOutput("regex", r"\(" * 100)
    StructuredOutput.of_schema(nested(MAX_NESTING - 1))


def test_sampling_params_take_a_marker_only_with_a_constraint():
    constraint = StructuredOutput.of_object()
    assert SamplingParams(structured=constraint, structured_after=[7]).structured_after == (7,)
    for bad in ({"structured_after": (1,)}, {"structured": constraint, "structured_after": ()}):
        with pytest.raises(RequestError) as caught:
            SamplingParams(**bad)
        assert caught.value.param == "structured_after"
    with pytest.raises(RequestError):
        SamplingParams(structured={"type": "object"})
