"""Anthropic's Messages API: every field works or is refused, streams tell what the whole tells."""

from __future__ import annotations

import json
from dataclasses import replace

import anthropic
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kit import LiveServer, ScriptBackend, client_of, wait_for
from kit import settings as config

from rtp_core.errors import RequestError
from rtp_core.server.schema.anthropic import MessagesBody

PATH = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
HELLO = {"max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}
TEXT = "Hello, wörld! \U0001f44b"


def said_by(backend, index=-1):
    ids = backend.requests[index].prompt_token_ids
    return backend.tokenizer.decode(ids, skip_special_tokens=False)


def events_of(text):
    """Objects of a stream, each under its own name."""
    events = []
    for frame in text.strip().split("\n\n"):
        name, data = frame.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


def turns(*contents):
    roles = ("user", "assistant") * len(contents)
    return [{"role": role, "content": one} for role, one in zip(roles, contents, strict=False)]


async def test_an_answer_has_anthropics_shape(client, backend):
    backend.cached = 7
    answer = (await client.post(PATH, json={**HELLO, "system": "Be brief."})).json()
    assert said_by(backend).startswith(
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    )
    assert (answer["type"], answer["role"], answer["model"]) == ("message", "assistant", "demo")
    assert answer["content"] == [{"type": "text", "text": "Hello, world!"}]
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("end_turn", None)
    assert answer["usage"] == {
        "input_tokens": len(backend.requests[0].prompt_token_ids) - 7,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 7,
        "output_tokens": len("Hello, world!") + 1,
    }


ENDS = [
    ({}, "end_turn", None),
    ({"max_tokens": 5}, "max_tokens", None),
    ({"stop_sequences": ["nope", "wor"]}, "stop_sequence", "wor"),
    ({"stop_sequences": []}, "end_turn", None),
]


@pytest.mark.parametrize(("extra", "reason", "sequence"), ENDS)
async def test_a_stream_tells_what_the_whole_answer_tells(client, extra, reason, sequence):
    whole = (await client.post(PATH, json={**HELLO, **extra})).json()
    assert (whole["stop_reason"], whole["stop_sequence"]) == (reason, sequence)
    answer = await client.post(PATH, json={**HELLO, **extra, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer.text)
    kinds = [event["type"] for event in events]
    assert kinds[:3] == ["message_start", "ping", "content_block_start"]
    assert set(kinds[3:-3]) == {"content_block_delta"}
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    text = "".join(one["delta"]["text"] for one in events if one["type"] == kinds[3])
    assert [{"type": "text", "text": text}] == whole["content"]
    start, end = events[0]["message"], events[-2]
    assert start["content"] == []
    assert start["usage"]["input_tokens"] == whole["usage"]["input_tokens"]
    assert end["delta"] == {"stop_reason": reason, "stop_sequence": sequence}
    assert end["usage"] == whole["usage"]


async def test_more_than_fits_is_asked_of_a_full_window(model_dir):
    async with client_of(ScriptBackend(model_dir, ("x" * 300,))) as client:
        answer = (await client.post(PATH, json={**HELLO, "max_tokens": 32000})).json()
        assert answer["stop_reason"] == "model_context_window_exceeded"
        usage = answer["usage"]
        assert usage["input_tokens"] + usage["output_tokens"] == 256


async def test_a_failure_ends_the_stream_as_an_event(client, backend):
    backend.break_after = (3, RequestError(None, "the engine failed", status=500))
    events = events_of((await client.post(PATH, json={**HELLO, "stream": True})).text)
    assert events[-1] == {
        "type": "error",
        "error": {"type": "api_error", "message": "the engine failed"},
    }


TURNS = [
    (turns([{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]), "user\na"),
    (
        turns(
            "w?",
            [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "see"},
                {"type": "tool_use", "id": "1", "name": "f", "input": {"x": 1}},
                {"type": "tool_use", "id": "2", "name": "g", "input": {}},
            ],
            [
                {"type": "tool_result", "tool_use_id": "1", "content": "42"},
                {
                    "type": "tool_result",
                    "tool_use_id": "2",
                    "content": [{"type": "text", "text": "no"}],
                    "is_error": True,
                },
                {"type": "text", "text": "so?"},
            ],
        ),
        "user\nw?<|im_end|>\n<|im_start|>assistant\nsee[f:x][g:]<|im_end|>\n"
        "<|im_start|>tool\n42<|im_end|>\n<|im_start|>tool\nError:\nno<|im_end|>\n"
        "<|im_start|>user\nso?<|im_end|>",
    ),
    (turns([{"type": "tool_result", "tool_use_id": "1"}]), "tool\n<|im_end|>"),
]


@pytest.mark.parametrize(("messages", "text"), TURNS)
async def test_blocks_become_turns(client, backend, messages, text):
    answer = await client.post(PATH, json={**HELLO, "messages": messages})
    assert answer.status_code == 200, answer.text
    assert said_by(backend).startswith(f"<|im_start|>{text}")


async def test_system_may_be_blocks(client, backend):
    blocks = [{"type": "text", "text": one, "cache_control": {"type": "ephemeral"}} for one in "ab"]
    await client.post(PATH, json={**HELLO, "system": blocks})
    assert said_by(backend).startswith("<|im_start|>system\na\nb<|im_end|>")


async def test_an_answer_that_was_begun_is_continued(client, backend):
    await client.post(PATH, json={**HELLO, "messages": turns("Hi", "I was")})
    assert said_by(backend).endswith("<|im_start|>assistant\nI was")


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("temperature", 0.5, "temperature", 0.5),
        ("top_p", 0.5, "top_p", 0.5),
        ("top_k", 5, "top_k", 5),
        ("max_tokens", 9, "max_tokens", 9),
        ("stop_sequences", ["x", "y"], "stop", ("x", "y")),
    ],
)
async def test_fields_reach_the_engine(client, backend, name, value, field, expected):
    answer = await client.post(PATH, json={**HELLO, name: value})
    assert answer.status_code == 200, answer.text
    assert getattr(backend.requests[0].sampling, field) == expected


@pytest.mark.parametrize(
    ("fields", "quick"),
    [
        ({"thinking": {"type": "disabled"}}, True),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, False),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, False),
        ({"metadata": {"user_id": "u"}, "service_tier": "auto"}, False),
        ({"speed": "standard", "cache_control": {"type": "ephemeral"}}, False),
        ({"tools": [], "tool_choice": {"type": "none"}}, False),
    ],
)
async def test_what_is_accepted(client, backend, fields, quick):
    answer = await client.post(PATH, json={**HELLO, **fields})
    assert answer.status_code == 200, answer.text
    assert said_by(backend).endswith("(quick)") is quick


async def test_a_count_is_that_of_the_prompt(client, backend):
    prompt = {"messages": HELLO["messages"], "system": "Be brief."}
    counted = (await client.post(COUNT, json=prompt)).json()
    await client.post(PATH, json={**HELLO, **prompt})
    assert counted == {"input_tokens": len(backend.requests[0].prompt_token_ids)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(model_dir):
    backend = ScriptBackend(model_dir)
    async with client_of(backend) as client:
        yield client, backend


def said(*parts):
    return {**HELLO, "messages": [{"role": "user", "content": list(parts)}]}


def answered(*parts):
    return {**HELLO, "messages": [{"role": "assistant", "content": list(parts)}]}


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}}
REFUSED = [
    ({"messages": HELLO["messages"]}, "max_tokens"),
    ({**HELLO, "max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 5}, "messages"),
    ({**HELLO, "messages": []}, "messages"),
    ({**HELLO, "messages": turns("x" * 300)}, "prompt is too long"),
    ({**HELLO, "temperature": 1.5}, "temperature"),
    ({**HELLO, "stop_sequences": list("abcde")}, "stop"),
    ({**HELLO, "n": 2}, "n"),
    ({**HELLO, "stop": "x"}, "stop"),
    ({**HELLO, "container": "c"}, "container"),
    ({**HELLO, "mcp_servers": []}, "mcp_servers"),
    ({**HELLO, "context_management": {}}, "context_management"),
    ({**HELLO, "speed": "fast"}, "speed"),
    ({**HELLO, "thinking": {"type": "between_tools"}}, "thinking.type"),
    ({**HELLO, "thinking": {"type": "enabled", "display": "omitted"}}, "thinking.display"),
    ({**HELLO, "output_config": {"effort": "some"}}, "output_config.effort"),
    ({**HELLO, "tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0].type"),
    ({**HELLO, "tools": [{"name": "f"}]}, "tools[0].input_schema"),
    ({**HELLO, "tool_choice": {"type": "tool"}}, "tool_choice.name"),
    ({**HELLO, "tool_choice": {"type": "some"}}, "tool_choice.type"),
    ({**HELLO, "system": [IMAGE]}, "system[0].type"),
    (said(IMAGE), "messages[0].content[0].type"),
    (said({"type": "document"}), "messages[0].content[0].type"),
    (said({"type": "text"}), "messages[0].content[0].text"),
    (said({"type": "tool_result", "content": "x"}), "messages[0].content[0].tool_use_id"),
    (said({"type": "thinking", "thinking": "x"}), "messages[0].content[0].type"),
    (answered({"type": "redacted_thinking", "data": "x"}), "messages[0].content[0].type"),
    (answered({"type": "tool_use", "id": "1", "name": "f"}), "messages[0].content[0].input"),
]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("body", "param"), REFUSED)
async def test_what_is_wrong_is_named(shared, body, param):
    client, backend = shared
    before = len(backend.requests)
    answer = await client.post(PATH, json=body)
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"type", "error"}
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert param in error["message"]
    assert len(backend.requests) == before


@pytest.mark.asyncio(loop_scope="module")
async def test_every_refusal_has_the_shape(shared):
    client, backend = shared
    long = await client.post(PATH, json={**HELLO, "messages": turns("x" * 300)})
    assert "prompt is too long" in long.json()["error"]["message"]
    for content, headers, status, kind in (
        (b"{", "application/json", 400, "invalid_request_error"),
        (b"{}", "text/plain", 415, "invalid_request_error"),
        (json.dumps({**HELLO, "model": "x"}), "application/json", 404, "not_found_error"),
    ):
        answer = await client.post(PATH, content=content, headers={"content-type": headers})
        assert answer.status_code == status
        assert answer.json()["error"]["type"] == kind
    backend.refuse = KeyError("/secret")
    try:
        answer = await client.post(PATH, json=HELLO)
    finally:
        backend.refuse = None
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "api_error")
    assert "secret" not in answer.text


async def test_a_full_queue_is_an_overload(model_dir):
    limit = config()
    limit = replace(limit, server=replace(limit.server, max_queued_requests=1))
    backend = ScriptBackend(model_dir)
    backend.gate.clear()
    async with client_of(backend, limit) as client:
        import asyncio

        first = asyncio.create_task(client.post(PATH, json=HELLO))
        while not backend.requests:
            await asyncio.sleep(0.01)
        answer = await client.post(PATH, json=HELLO)
        assert answer.status_code == 529
        assert answer.json()["error"]["type"] == "overloaded_error"
        assert answer.headers["retry-after"]
        backend.gate.set()
        assert (await first).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"x-api-key": "no"}, 401),
        ({"x-api-key": "sk"}, 200),
        ({"authorization": "Bearer sk"}, 200),
        ({"x-api-key": "sk", "anthropic-version": "2023-06-01", "anthropic-beta": "b"}, 200),
    ],
)
async def test_keys(model_dir, headers, status):
    async with client_of(ScriptBackend(model_dir), config(api_keys=("sk",))) as client:
        answer = await client.post(PATH, json=HELLO, headers=headers)
    assert answer.status_code == status
    assert status == 200 or answer.json()["error"]["type"] == "authentication_error"


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
TEXTS = st.text(max_size=8) | st.sampled_from(["text", "user", "assistant", "tool_result", "type"])
JSON = st.recursive(
    SCALARS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted(MessagesBody.__struct_fields__)


@pytest.mark.asyncio(loop_scope="module")
async def test_whatever_is_sent_is_answered_or_refused(shared):
    client, _ = shared
    bodies = []

    @given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5), st.booleans())
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    def collect(body, sane):
        bodies.append({**body, **HELLO} if sane else {**HELLO, **body})

    collect()
    for body in bodies:
        answer = await client.post(PATH, json=body)
        assert answer.status_code in (200, 400, 404), (body, answer.text)


@pytest.fixture(scope="module")
def server(model_dir):
    settings_ = config(port=0, api_keys=("sk",), keep_alive_s=0.1)
    with LiveServer(lambda: ScriptBackend(model_dir, (TEXT,), 2), settings_) as live:
        yield live


def test_the_official_client(server):
    with anthropic.Anthropic(base_url=server.url, api_key="sk", max_retries=0) as client:
        message = client.messages.create(model="demo", **HELLO)
        assert message.content[0].text == TEXT
        assert message.stop_reason == "end_turn"
        with client.messages.stream(model="demo", system="x", **HELLO) as stream:
            assert "".join(stream.text_stream) == TEXT
            final = stream.get_final_message()
        assert final.content[0].text == TEXT
        assert final.usage.output_tokens == len(TEXT.encode()) + 1
        count = client.messages.count_tokens(model="demo", messages=HELLO["messages"])
        assert count.input_tokens == message.usage.input_tokens
        with pytest.raises(anthropic.BadRequestError):
            client.messages.create(model="demo", max_tokens=0, messages=HELLO["messages"])
        with pytest.raises(anthropic.NotFoundError):
            client.messages.create(model="other", **HELLO)
        with pytest.raises(anthropic.AuthenticationError):
            client.with_options(api_key="no").messages.create(model="demo", **HELLO)


def test_a_waiting_stream_pings_and_a_lost_client_ends_its_request(server):
    import httpx

    server.on_loop(lambda: setattr(server.backend, "step_s", 0.3))
    try:
        with httpx.stream(
            "POST",
            f"{server.url}{PATH}",
            json={**HELLO, "stream": True},
            headers={"x-api-key": "sk"},
        ) as stream:
            seen = ""
            for text in stream.iter_text():
                seen += text
                if seen.count("event: ping") > 1:
                    break
        wait_for(lambda: not server.on_loop(lambda: set(server.backend.live)))
    finally:
        server.on_loop(lambda: setattr(server.backend, "step_s", 0.0))
