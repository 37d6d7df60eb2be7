"""OpenAI's Responses API: every field works or is refused, streams tell what the whole tells."""

from __future__ import annotations

import json

import openai
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kit import LiveServer, ScriptBackend, client_of
from kit import settings as config

from rtp_core.errors import RequestError
from rtp_core.server.schema.responses import ResponsesBody

PATH = "/v1/responses"
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
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


async def test_an_answer_has_openais_shape(client, backend):
    backend.cached = 7
    body = {"input": "Hi", "instructions": "Be brief.", "metadata": {"a": "b"}, "store": True}
    answer = (await client.post(PATH, json=body)).json()
    assert said_by(backend).startswith(
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    )
    assert answer["object"] == "response"
    assert answer["status"] == "completed"
    assert answer["store"] is False
    assert answer["metadata"] == {"a": "b"}
    assert answer["instructions"] == "Be brief."
    (item,) = answer["output"]
    assert (item["type"], item["role"], item["status"]) == ("message", "assistant", "completed")
    assert item["content"][0]["text"] == "Hello, world!"
    usage = answer["usage"]
    assert usage["input_tokens"] == len(backend.requests[0].prompt_token_ids)
    assert usage["input_tokens_details"]["cached_tokens"] == 7
    assert usage["output_tokens"] == len("Hello, world!") + 1
    assert usage["output_tokens_details"] == {"reasoning_tokens": 0}
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


@pytest.mark.parametrize("extra", [{}, {"max_output_tokens": 5}, {"stop": ["wor"]}])
async def test_a_stream_tells_what_the_whole_answer_tells(client, extra):
    body = {"input": "Hi", "include": ["message.output_text.logprobs"], "top_logprobs": 2, **extra}
    whole = (await client.post(PATH, json=body)).json()
    events = events_of((await client.post(PATH, json={**body, "stream": True})).text)
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert set(kinds[4:-4]) == {"output_text.delta"}
    assert kinds[-4:-1] == ["output_text.done", "content_part.done", "output_item.done"]
    assert kinds[-1] == whole["status"]
    last = events[-1]["response"]
    for changing in ("id", "created_at", "completed_at"):
        whole.pop(changing), last.pop(changing)
    ids = {whole["output"][0].pop("id"), last["output"][0].pop("id")}
    assert len(ids) == 2
    assert last == whole
    deltas = [event for event in events if event["type"].endswith("text.delta")]
    content = whole["output"][0]["content"][0]
    assert "".join(delta["delta"] for delta in deltas) == content["text"]
    told = [one for delta in deltas for one in delta["logprobs"]]
    assert told == content["logprobs"][: len(told)]
    assert len(content["logprobs"]) == whole["usage"]["output_tokens"]


async def test_an_answer_that_is_cut_is_incomplete(client):
    answer = (await client.post(PATH, json={"input": "Hi", "max_output_tokens": 3})).json()
    assert answer["status"] == "incomplete"
    assert answer["incomplete_details"] == {"reason": "max_output_tokens"}
    assert answer["output"][0]["status"] == "incomplete"


async def test_an_answer_of_nothing_has_an_empty_text(model_dir):
    async with client_of(ScriptBackend(model_dir, ("",))) as client:
        answer = (await client.post(PATH, json={"input": "Hi"})).json()
    assert answer["output"][0]["content"][0]["text"] == ""


async def test_a_failure_ends_the_stream_as_an_event(client, backend):
    backend.break_after = (3, RequestError(None, "the engine failed", status=500))
    events = events_of((await client.post(PATH, json={"input": "Hi", "stream": True})).text)
    assert events[-1]["type"] == "response.failed"
    response = events[-1]["response"]
    assert response["status"] == "failed"
    assert response["error"] == {"code": "server_error", "message": "the engine failed"}
    assert response["output"][0]["content"][0]["text"] == "Hel"


TURNS = [
    ([{"role": "developer", "content": "d"}], "<|im_start|>system\nd<|im_end|>\n"),
    (
        [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]}],
        "<|im_start|>user\na<|im_end|>\n",
    ),
    (
        [
            {"role": "user", "content": "w?"},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": "see", "annotations": []}],
            },
            {"type": "function_call", "call_id": "1", "name": "f", "arguments": '{"x": 1}'},
            {"type": "function_call", "call_id": "2", "name": "g", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "42"},
            {
                "type": "function_call_output",
                "call_id": "2",
                "output": [{"type": "input_text", "text": "43"}],
            },
        ],
        "<|im_start|>user\nw?<|im_end|>\n<|im_start|>assistant\nsee[f:x][g:]<|im_end|>\n"
        "<|im_start|>tool\n42<|im_end|>\n<|im_start|>tool\n43<|im_end|>\n",
    ),
]


@pytest.mark.parametrize(("items", "text"), TURNS)
async def test_items_become_turns(client, backend, items, text):
    answer = await client.post(PATH, json={"input": items})
    assert answer.status_code == 200, answer.text
    assert said_by(backend).startswith(text)


async def test_system_turns_at_the_beginning_are_one(client, backend):
    items = [{"role": "developer", "content": "b"}, {"role": "user", "content": "c"}]
    await client.post(PATH, json={"input": items, "instructions": "a"})
    assert said_by(backend).startswith("<|im_start|>system\na\nb<|im_end|>\n<|im_start|>user")


async def test_a_long_conversation_is_shortened_on_demand(client, backend):
    turns = [
        {"role": role, "content": f"{index}" + "x" * 40}
        for index in range(4)
        for role in ("user", "assistant")
    ]
    items = [*turns, {"role": "user", "content": "last"}]
    refused = await client.post(PATH, json={"input": items, "instructions": "rules"})
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    assert refused.json()["error"]["param"] == "input"
    body = {"input": items, "instructions": "rules", "truncation": "auto", "max_output_tokens": 9}
    answer = await client.post(PATH, json=body)
    assert answer.status_code == 200, answer.text
    said = said_by(backend)
    assert said.startswith("<|im_start|>system\nrules<|im_end|>\n<|im_start|>user\n2x")
    one_more = 2 * len("<|im_start|>user\n1" + "x" * 40) - 2 * len("<|im_start|>") + 4
    assert 256 - one_more < len(backend.requests[0].prompt_token_ids) + 9 <= 256
    body["input"] = "y" * 300
    assert (await client.post(PATH, json=body)).status_code == 400


SAMPLED = [
    ("temperature", 0.5, 0.5),
    ("top_p", 0.5, 0.5),
    ("top_k", 5, 5),
    ("min_p", 0.1, 0.1),
    ("seed", 7, 7),
    ("stop", ["x"], ("x",)),
    ("presence_penalty", 1, 1.0),
    ("frequency_penalty", 1, 1.0),
    ("repetition_penalty", 1.5, 1.5),
    ("min_tokens", 2, 2),
    ("ignore_eos", True, True),
]


@pytest.mark.parametrize(("name", "value", "expected"), SAMPLED)
async def test_fields_reach_the_engine(client, backend, name, value, expected):
    body = {"input": "Hi", "max_output_tokens": 9, name: value}
    answer = await client.post(PATH, json=body)
    assert answer.status_code == 200, answer.text
    assert getattr(backend.requests[0].sampling, name) == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"background": False},
        {"previous_response_id": None},
        {"reasoning": {"effort": "none", "summary": "auto"}},
        {"text": {"format": {"type": "text"}, "verbosity": "low"}},
        {"include": ["reasoning.encrypted_content"]},
        {"max_tool_calls": 3},
        {"user": "u", "prompt_cache_key": "k", "service_tier": "auto"},
        {"stream": True, "stream_options": {"include_obfuscation": False}},
    ],
)
async def test_harmless_fields_are_accepted(client, fields):
    answer = await client.post(PATH, json={"input": "Hi", **fields})
    assert answer.status_code == 200, answer.text


async def test_effort_reaches_the_template(client, backend):
    await client.post(PATH, json={"input": "Hi", "reasoning": {"effort": "none"}})
    assert said_by(backend).endswith("(quick)")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(model_dir):
    backend = ScriptBackend(model_dir)
    async with client_of(backend) as client:
        yield client, backend


def item(**fields):
    return {"input": [fields]}


REFUSED = [
    ({}, "input"),
    ({"input": []}, "input"),
    ({"input": 5}, "input"),
    ({"input": "Hi", "previous_response_id": "resp_1"}, "previous_response_id"),
    ({"input": "Hi", "conversation": "conv_1"}, "conversation"),
    ({"input": "Hi", "background": True}, "background"),
    ({"input": "Hi", "prompt": {"id": "p"}}, "prompt"),
    ({"input": "Hi", "context_management": []}, "context_management"),
    ({"input": "Hi", "messages": []}, "messages"),
    ({"input": "Hi", "max_tokens": 5}, "max_tokens"),
    ({"input": "Hi", "n": 2}, "n"),
    ({"input": "Hi", "max_output_tokens": 0}, "max_output_tokens"),
    ({"input": "Hi", "max_output_tokens": 999}, "input"),
    ({"input": "x" * 300}, "input"),
    ({"input": "Hi", "temperature": 3}, "temperature"),
    ({"input": "Hi", "truncation": "some"}, "truncation"),
    ({"input": "Hi", "top_logprobs": 2}, "top_logprobs"),
    ({"input": "Hi", "top_logprobs": 21}, "top_logprobs"),
    ({"input": "Hi", "include": ["file_search_call.results"]}, "include"),
    ({"input": "Hi", "tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"input": "Hi", "tools": [{"type": "custom", "name": "x"}]}, "tools[0].type"),
    ({"input": "Hi", "tool_choice": {"type": "file_search"}}, "tool_choice.type"),
    ({"input": "Hi", "text": {"format": {"type": "poem"}}}, "text.format"),
    ({"input": "Hi", "text": {"formt": 1}}, "text.formt"),
    ({"input": "Hi", "reasoning": {"summary": "concise"}}, "reasoning.summary"),
    ({"input": "Hi", "metadata": {"a": 1}}, "metadata"),
    ({"input": "Hi", "metadata": {"k" * 65: "v"}}, "metadata"),
    ({"input": "Hi", "stream_options": {}}, "stream_options"),
    ({"input": "Hi", "priority": 3}, "priority"),
    (item(type="item_reference", id="msg_1"), "input[0].type"),
    (item(type="web_search_call", id="ws_1"), "input[0].type"),
    (item(content="x"), "input[0].role"),
    (item(role="user"), "input[0].content"),
    (item(role="king", content="x"), "input[0].role"),
    (item(role="user", content=[{"type": "poem"}]), "input[0].content[0].type"),
    (item(role="user", content=[{"type": "input_text"}]), "input[0].content[0].text"),
    (item(type="function_call", call_id="1", name="f"), "input[0].arguments"),
    (item(type="function_call", call_id="1", name="f", arguments="{"), "input[0]"),
    (item(type="function_call_output", output="x"), "input[0].call_id"),
    (item(type="reasoning", encrypted_content="gAAA"), "input[0].encrypted_content"),
]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("body", "param"), REFUSED)
async def test_what_is_wrong_is_named(shared, body, param):
    client, backend = shared
    before = len(backend.requests)
    answer = await client.post(PATH, json=body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"].startswith(param)
    assert len(backend.requests) == before


@pytest.mark.asyncio(loop_scope="module")
async def test_media_are_refused_as_not_implemented(shared):
    client, _ = shared
    for kind in ("input_image", "input_file"):
        part = {"type": kind, "image_url": "data:image/png;base64,AA"}
        answer = await client.post(PATH, json=item(role="user", content=[part]))
        assert answer.status_code == 501
        assert answer.json()["error"]["param"] == "input[0].content[0].type"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_nothing_is_stored(shared, method):
    client, _ = shared
    answer = await client.request(method, f"{PATH}/resp_123")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "response_not_found"


async def test_reasoning_comes_back_as_it_was_sealed():
    from rtp_core.server.responses.reading import Conversation, sealed
    from rtp_core.server.schema.responses import InputItem, InputPart

    parts = [InputPart(type="reasoning_text", text="hm")]
    for thought in (
        InputItem(type="reasoning", encrypted_content=sealed("hm")),
        InputItem(type="reasoning", content=parts),
    ):
        conversation = Conversation()
        conversation.take(thought, "input[0]")
        conversation.take(InputItem(role="assistant", content="so"), "input[1]")
        assert conversation.messages == [{"role": "assistant", "reasoning": "hm", "content": "so"}]
        assert conversation.places == ["input[0]"]


NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | NUMBERS
TEXTS = st.text(max_size=8)
JSON = st.recursive(
    SCALARS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted(ResponsesBody.__struct_fields__)


@pytest.mark.asyncio(loop_scope="module")
async def test_whatever_is_sent_is_answered_or_refused(shared):
    client, _ = shared
    bodies = []

    @given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5), st.booleans())
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    def collect(body, sane):
        bodies.append({**body, "input": "Hi"} if sane else body)

    collect()
    for body in bodies:
        answer = await client.post(PATH, json=body)
        assert answer.status_code in (200, 400, 404, 501), (body, answer.text)


@pytest.fixture(scope="module")
def server(model_dir):
    with LiveServer(
        lambda: ScriptBackend(model_dir, (TEXT,), 2), config(port=0, api_keys=("sk",))
    ) as live:
        yield live


def test_the_official_client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="sk", max_retries=0) as client:
        answer = client.responses.create(model="demo", input="Hi", instructions="x")
        assert answer.output_text == TEXT
        assert answer.usage.output_tokens == len(TEXT.encode()) + 1
        events = list(client.responses.create(model="demo", input="Hi", stream=True))
        assert events[-1].response.output_text == TEXT
        with client.responses.stream(model="demo", input="Hi") as stream:
            stream.until_done()
            assert stream.get_final_response().output_text == TEXT
        with pytest.raises(openai.BadRequestError) as refused:
            client.responses.create(model="demo", input="Hi", previous_response_id="resp_1")
        assert refused.value.param == "previous_response_id"
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve("resp_1")
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="no").responses.create(model="demo", input="Hi")


def test_a_client_that_leaves_ends_its_request(server):
    import httpx

    def slow():
        server.backend.step_s = 0.05

    server.on_loop(slow)
    try:
        with httpx.stream(
            "POST",
            f"{server.url}{PATH}",
            json={"input": "Hi", "stream": True},
            headers={"authorization": "Bearer sk"},
        ) as stream:
            next(stream.iter_text())
        from kit import wait_for

        wait_for(lambda: not server.on_loop(lambda: set(server.backend.live)))
    finally:
        server.on_loop(lambda: setattr(server.backend, "step_s", 0.0))
