"""OpenAI's client as it is, against a real model: chat, tools, schemas, completions, responses."""

from __future__ import annotations

import json
from typing import Literal

import openai
import pydantic
import pytest

pytestmark = [pytest.mark.model, pytest.mark.timeout(300)]
ASKED = "What is the capital of France? Answer briefly."
QUESTION = [{"role": "user", "content": ASKED}]
INVENT = [{"role": "user", "content": "Invent a person. Answer in JSON."}]
GREEDY = {"model": "demo", "temperature": 0}
WEATHER = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": WEATHER}}
FLAT_TOOL = {"type": "function", "name": "weather", "parameters": WEATHER, "strict": True}


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=12)
    age: int = pydantic.Field(ge=1, le=120)
    mood: Literal["good", "bad"]


class Weather(pydantic.BaseModel):
    """The weather of a city."""

    city: Literal["Paris", "Oslo"]


@pytest.fixture(scope="module")
def client(service):
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def whole(client):
    return client.chat.completions.create(messages=QUESTION, max_tokens=24, **GREEDY)


def test_models(client):
    (only,) = client.models.list()
    assert only.id == "demo"
    assert client.models.retrieve("demo").id == "demo"


def test_chat(whole):
    (choice,) = whole.choices
    assert "Paris" in choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens


def test_a_stream_says_the_same(client, whole):
    with client.chat.completions.stream(messages=QUESTION, max_tokens=24, **GREEDY) as stream:
        texts = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert "".join(texts) == whole.choices[0].message.content
    assert final.choices[0].message.content == whole.choices[0].message.content
    assert final.choices[0].finish_reason == whole.choices[0].finish_reason


async def test_asynchronous(service, whole):
    async with openai.AsyncOpenAI(
        base_url=f"{service.url}/v1", api_key="none", max_retries=0
    ) as client:
        ask = {"messages": QUESTION, "max_tokens": 24, **GREEDY}
        answer = await client.chat.completions.create(**ask)
        stream = await client.chat.completions.create(
            **ask, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert answer.choices[0].message.content == whole.choices[0].message.content
    text = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_choices_logprobs_and_seed(client):
    ask = {
        "model": "demo", "messages": QUESTION, "max_tokens": 6, "n": 2, "seed": 5,
        "logprobs": True, "top_logprobs": 3,
    }  # fmt: skip
    first = client.chat.completions.create(**ask)
    again = client.chat.completions.create(**ask)
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in again.choices]
    for choice in first.choices:
        entries = choice.logprobs.content
        assert all(len(entry.top_logprobs) == 3 for entry in entries)
        said = bytes(byte for entry in entries for byte in entry.bytes).decode()
        assert said.startswith(choice.message.content)


def test_a_required_tool_is_called_and_its_result_is_read(client):
    ask = {"messages": QUESTION, "max_tokens": 60, "tools": [TOOL], **GREEDY}
    answer = client.chat.completions.create(**ask, tool_choice="required").choices[0]
    assert answer.finish_reason == "tool_calls"
    call = answer.message.tool_calls[0]
    assert (call.type, call.function.name) == ("function", "weather")
    assert json.loads(call.function.arguments)["city"] in ("Paris", "Oslo")
    result = {"role": "tool", "tool_call_id": call.id, "content": "Rain, 7 degrees"}
    after = client.chat.completions.create(
        **{**ask, "messages": [*QUESTION, answer.message, result]}, tool_choice="none"
    )
    assert after.choices[0].message.content
    assert not after.choices[0].message.tool_calls


def test_a_named_tool_streams_its_arguments(client):
    choice = {"type": "function", "function": {"name": "weather"}}
    ask = {"messages": QUESTION, "max_tokens": 60, "tools": [TOOL], "tool_choice": choice, **GREEDY}
    whole = client.chat.completions.create(**ask).choices[0].message.tool_calls[0]
    deltas = [
        call
        for chunk in client.chat.completions.create(**ask, stream=True)
        for call in chunk.choices[0].delta.tool_calls or ()
    ]
    assert deltas[0].id
    assert deltas[0].function.name == "weather"
    assert "".join(one.function.arguments or "" for one in deltas) == whole.function.arguments


def test_a_model_may_call_or_speak(client):
    answer = client.chat.completions.create(
        messages=QUESTION, tools=[TOOL], max_tokens=30, **GREEDY
    )
    message = answer.choices[0].message
    assert bool(message.tool_calls) == (answer.choices[0].finish_reason == "tool_calls")
    assert message.tool_calls or message.content


def test_pydantic_models_are_parsed(client):
    answer = client.chat.completions.parse(
        messages=INVENT, response_format=Person, max_tokens=100, **GREEDY
    )
    assert isinstance(answer.choices[0].message.parsed, Person)


def test_pydantic_tools_are_parsed(client):
    answer = client.chat.completions.parse(
        messages=QUESTION, tools=[openai.pydantic_function_tool(Weather)],
        tool_choice="required", max_tokens=60, **GREEDY,
    )  # fmt: skip
    call = answer.choices[0].message.tool_calls[0]
    assert isinstance(call.function.parsed_arguments, Weather)


def test_completions_score_what_they_echo(client):
    answer = client.completions.create(
        model="demo", prompt=["The sky is", "Snow is"], max_tokens=1, temperature=0,
        echo=True, logprobs=1,
    )  # fmt: skip
    assert answer.choices[0].text.startswith("The sky is")
    assert answer.choices[1].text.startswith("Snow is")
    for choice in answer.choices:
        scores = choice.logprobs
        assert scores.token_logprobs[0] is None
        assert all(score <= 0 for score in scores.token_logprobs[1:])
        assert "".join(scores.tokens) == choice.text


def test_completions_stream(client):
    ask = {"model": "demo", "prompt": "One, two, three,", "max_tokens": 12, "temperature": 0}
    whole = client.completions.create(**ask).choices[0].text
    chunks = client.completions.create(**ask, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole


def test_responses(client):
    ask = {"input": ASKED, "max_output_tokens": 24, **GREEDY}
    answer = client.responses.create(**ask)
    assert "Paris" in answer.output_text
    with client.responses.stream(**ask) as stream:
        texts = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(texts) == final.output_text == answer.output_text
    assert final.usage.output_tokens == answer.usage.output_tokens


def test_responses_call_tools_and_take_their_results(client):
    ask = {"max_output_tokens": 60, "tools": [FLAT_TOOL], **GREEDY}
    answer = client.responses.create(
        input=QUESTION, tool_choice="required", parallel_tool_calls=False, **ask
    )
    (call,) = (item for item in answer.output if item.type == "function_call")
    assert json.loads(call.arguments)["city"] in ("Paris", "Oslo")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "Rain"}
    after = client.responses.create(
        input=[*QUESTION, *answer.output, result], tool_choice="none", **ask
    )
    assert after.output_text


def test_responses_parse_pydantic_models(client):
    answer = client.responses.parse(
        input=INVENT, text_format=Person, max_output_tokens=100, **GREEDY
    )
    assert isinstance(answer.output_parsed, Person)


def test_mistakes_are_the_clients_exceptions(client):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="demo", messages=QUESTION, top_p=2)
    assert refused.value.param == "top_p"
    with pytest.raises(openai.BadRequestError, match="maximum context length is"):
        client.completions.create(model="demo", prompt="x " * 20_000)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-9", messages=QUESTION)
