"""The unmodified OpenAI client, synchronous and asynchronous, whole and streaming."""

from __future__ import annotations

import openai
import pytest
from kit import LiveServer, ScriptBackend, settings

TEXT = "Hello, wörld! \U0001f44b"
MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def server(model_dir):
    config = settings(port=0, api_keys=("sk-test",))
    with LiveServer(lambda: ScriptBackend(model_dir, (TEXT,), 2), config) as server:
        yield server


@pytest.fixture
def sync_client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="sk-test", max_retries=0) as client:
        yield client


def test_models(sync_client):
    assert [model.id for model in sync_client.models.list()] == ["demo"]
    assert sync_client.models.retrieve("demo").owned_by == "rtp"


def test_chat(sync_client):
    answer = sync_client.chat.completions.create(
        model="demo", messages=MESSAGES, n=2, logprobs=True, top_logprobs=1, seed=1
    )
    assert [choice.message.content for choice in answer.choices] == [TEXT, TEXT]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    entries = answer.choices[0].logprobs.content
    assert bytes(b for entry in entries[:-1] for b in entry.bytes).decode() == TEXT


def test_chat_stream(sync_client):
    stream = sync_client.chat.completions.create(
        model="demo", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == TEXT
    assert chunks[-1].usage.completion_tokens == len(TEXT.encode()) + 1


def test_chat_stream_helper(sync_client):
    with sync_client.chat.completions.stream(model="demo", messages=MESSAGES) as stream:
        stream.until_done()
        final = stream.get_final_completion()
    assert final.choices[0].message.content == TEXT
    assert final.choices[0].finish_reason == "stop"


def test_completions(sync_client):
    answer = sync_client.completions.create(
        model="demo", prompt=["a", "b"], max_tokens=5, logprobs=2
    )
    assert [choice.text for choice in answer.choices] == ["Hello", "Hello"]
    assert answer.choices[0].logprobs.tokens == list("Hello")
    stream = sync_client.completions.create(model="demo", prompt="a", max_tokens=99, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == TEXT


def test_errors_are_the_clients_exceptions(server, sync_client):
    with pytest.raises(openai.BadRequestError) as refused:
        sync_client.chat.completions.create(model="demo", messages=MESSAGES, temperature=9)
    assert refused.value.param == "temperature"
    with pytest.raises(openai.NotFoundError):
        sync_client.chat.completions.create(model="other", messages=MESSAGES)
    with pytest.raises(openai.NotFoundError):
        sync_client.embeddings.create(model="demo", input="Hi")
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


async def test_asynchronous(server):
    async with openai.AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key="sk-test", max_retries=0
    ) as client:
        answer = await client.chat.completions.create(model="demo", messages=MESSAGES)
        assert answer.choices[0].message.content == TEXT
        stream = await client.chat.completions.create(model="demo", messages=MESSAGES, stream=True)
        parts = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(parts) == TEXT
