"""Anthropic's client as it is, against a real model."""

from __future__ import annotations

import anthropic
import pydantic
import pytest

pytestmark = [pytest.mark.model, pytest.mark.timeout(300)]
ASKED = "What is the capital of France? Answer briefly."
ASK = {
    "model": "demo",
    "max_tokens": 24,
    "messages": [{"role": "user", "content": ASKED}],
    "extra_body": {"temperature": 0},
}
WEATHER = {
    "name": "weather",
    "description": "The weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Oslo"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


class Person(pydantic.BaseModel):
    name: str
    age: int


@pytest.fixture(scope="module")
def client(service):
    with anthropic.Anthropic(base_url=service.url, api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def whole(client):
    return client.messages.create(**ASK)


def test_a_message(client, whole):
    assert "Paris" in whole.content[0].text
    assert whole.stop_reason in ("end_turn", "max_tokens")
    count = client.messages.count_tokens(model="demo", messages=ASK["messages"])
    assert count.input_tokens == whole.usage.input_tokens


def test_a_stream_says_the_same(client, whole):
    with client.messages.stream(**ASK) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text == whole.content[0].text
    assert final.usage.output_tokens == whole.usage.output_tokens


async def test_asynchronous(service, whole):
    async with anthropic.AsyncAnthropic(
        base_url=service.url, api_key="none", max_retries=0
    ) as client:
        answer = await client.messages.create(**ASK)
        async with client.messages.stream(**ASK, system="Be brief.") as stream:
            told = "".join([text async for text in stream.text_stream])
    assert answer.content[0].text == whole.content[0].text
    assert told


def test_a_tool_is_called_and_its_result_is_read(client):
    ask = {**ASK, "max_tokens": 60, "tools": [WEATHER]}
    answer = client.messages.create(
        **ask, tool_choice={"type": "any", "disable_parallel_tool_use": True}
    )
    assert answer.stop_reason == "tool_use"
    (call,) = (block for block in answer.content if block.type == "tool_use")
    assert (call.name, call.input["city"] in ("Paris", "Oslo")) == ("weather", True)
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "Rain, 7 degrees"}
    turns = [
        *ASK["messages"],
        {"role": "assistant", "content": answer.content},
        {"role": "user", "content": [result]},
    ]
    after = client.messages.create(**{**ask, "messages": turns}, tool_choice={"type": "none"})
    assert after.content[0].text


def test_a_streamed_tool_call_has_whole_input(client):
    choice = {"type": "tool", "name": "weather"}
    with client.messages.stream(
        **{**ASK, "max_tokens": 60}, tools=[WEATHER], tool_choice=choice
    ) as stream:
        final = stream.get_final_message()
    (call,) = (block for block in final.content if block.type == "tool_use")
    assert call.input["city"] in ("Paris", "Oslo")


def test_pydantic_models_are_parsed(client):
    ask = {**ASK, "max_tokens": 100}
    answer = client.messages.parse(**ask, output_format=Person)
    assert isinstance(answer.parsed_output, Person)


def test_mistakes_are_the_clients_exceptions(client):
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(**{**ASK, "max_tokens": 0})
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(**{**ASK, "model": "other"})
