"""Structured output of a real model over HTTP, with OpenAI's own client."""

from __future__ import annotations

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import jsonschema
import openai
import pydantic
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from serving import serving

pytestmark = pytest.mark.timeout(300)
QUESTION = [{"role": "user", "content": "Invent a person: name, age, two hobbies. Answer in JSON."}]
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 1, "maximum": 120},
        "hobbies": {
            "type": "array",
            "items": {"type": "string", "maxLength": 12},
            "minItems": 2,
            "maxItems": 2,
        },
    },
    "required": ["name", "age", "hobbies"],
    "additionalProperties": False,
}
SCHEMAS = [
    PERSON,
    {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 1, "maxItems": 3},
    {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "v": {"type": "integer", "maximum": 9, "minimum": 0},
                    "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/leaf"}]},
                },
                "required": ["v", "next"],
                "additionalProperties": False,
            },
            "leaf": {"const": "end"},
        },
        "$ref": "#/$defs/node",
    },
    {
        "anyOf": [
            {"type": "boolean"},
            {"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.5},
        ]
    },
]


@pytest.fixture(scope="module")
def server(demo_model, tmp_path_factory):
    log = tmp_path_factory.mktemp("serve") / "log"
    with serving("demo", log, "--set", "speculation.methods=ngram") as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def ask(client, **fields):
    fields = {"model": "demo", "messages": QUESTION, "max_tokens": 120, "temperature": 0, **fields}
    return client.chat.completions.create(**fields).choices[0]


def schema_format(schema):
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema, "strict": True}}


@pytest.mark.parametrize("schema", SCHEMAS, ids=["person", "colours", "references", "either"])
def test_answers_are_valid(client, schema):
    for fields in (
        {"response_format": schema_format(schema)},
        {"extra_body": {"structured_outputs": {"json": schema}}, "temperature": 1, "seed": 4},
    ):
        choice = ask(client, **fields)
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content), schema)


def test_any_object_and_truncation(client):
    whole = ask(client, response_format={"type": "json_object"}, max_tokens=250)
    if whole.finish_reason == "stop":
        assert isinstance(json.loads(whole.message.content), dict)
    cut = ask(client, response_format=schema_format(PERSON), max_tokens=4)
    assert cut.finish_reason == "length"
    assert cut.message.content.startswith("{")


def test_patterns_choices_and_grammars(client):
    def structured(**fields):
        return ask(client, extra_body={"structured_outputs": fields}).message.content

    assert re.fullmatch("[0-9]{3}-[a-f]{2}", structured(regex=r"\d{3}-[a-f]{2}"))
    assert structured(choice=["yes", "no"]) in ("yes", "no")
    assert re.fullmatch(
        "[a-z]+(,[a-z]+){2}", structured(grammar='start: W ("," W){2}\nW: /[a-z]{1,8}/')
    )
    answer = client.completions.create(
        model="demo",
        prompt="Pick",
        max_tokens=20,
        extra_body={"structured_outputs": {"choice": ["a", "b"]}},
    )
    assert answer.choices[0].text in ("a", "b")


def test_a_stream_is_the_whole_answer_and_never_splits_a_character(client):
    family = "👩‍👩‍👧‍👦 family"
    for fields in (
        {"structured_outputs": {"choice": [family]}},
        {"structured_outputs": {"json": PERSON}},
    ):
        settings = {"model": "demo", "messages": QUESTION, "max_tokens": 90, "seed": 3}
        whole = client.chat.completions.create(**settings, extra_body=fields)
        chunks = list(client.chat.completions.create(**settings, extra_body=fields, stream=True))
        parts = [chunk.choices[0].delta.content or "" for chunk in chunks]
        assert "".join(parts) == whole.choices[0].message.content
        assert all("\ufffd" not in part for part in parts)
        assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason == "stop"
    assert client.chat.completions.create(
        **settings, extra_body={"structured_outputs": {"choice": [family]}}
    ).choices[0].message.content == family  # fmt: skip


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=15)
    age: int = pydantic.Field(ge=0, le=150)
    mood: Literal["good", "bad"]


def test_the_client_parses_pydantic_models(client):
    answer = client.chat.completions.parse(
        model="demo", messages=QUESTION, response_format=Person, max_tokens=100, temperature=0
    )
    assert isinstance(answer.choices[0].message.parsed, Person)


def test_many_at_once_keep_their_own_constraints(client):
    def one(number):
        kind = {"json": PERSON} if number % 2 else {"regex": "[0-9]{3}-[a-f]{2}"}
        choice = ask(client, extra_body={"structured_outputs": kind}, seed=number, temperature=1)
        assert choice.finish_reason == "stop"
        return choice.message.content

    with ThreadPoolExecutor(6) as pool:
        for number, text in enumerate(pool.map(one, range(6))):
            if number % 2:
                jsonschema.validate(json.loads(text), PERSON)
            else:
                assert re.fullmatch("[0-9]{3}-[a-f]{2}", text)


HOSTILE = [
    {"regex": "(a{1,500}){1,500}"},
    {"regex": "((a+)+)+$"},
    {"regex": "(.*a){40}"},
    {"json": {"$ref": "http://127.0.0.1:1/x.json"}},
    {"json": {"enum": ["x" * 2**20]}},
    {"json": {"enum": [f"v{number}" for number in range(20_000)]}},
    {"json": "[" * 200_000},
    {"grammar": 'start: a\na: a a a | ""'},
]


def test_hostile_constraints_leave_the_server_well(server, client):
    for wanted in HOSTILE:
        answer = server.post(
            "/v1/chat/completions",
            {"messages": QUESTION, "max_tokens": 4, "structured_outputs": wanted},
            timeout=20,
        )
        assert answer.status_code in (200, 400), wanted
        if answer.status_code == 400:
            assert answer.json()["error"]["param"] == "structured_outputs"
            assert len(answer.content) < 2000
        assert server.get("/health").status_code == 200
    assert ask(client, max_tokens=2).finish_reason == "length"
