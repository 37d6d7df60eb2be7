"""What is wrong is refused with 4xx naming the field, in one shape, and harms nothing."""

from __future__ import annotations

import json

import pytest
import pytest_asyncio
from kit import ScriptBackend, client_of

HELLO = {"messages": [{"role": "user", "content": "Hi"}]}
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
JSON_SCHEMA = {"type": "json_schema"}
REMOTE = {"$ref": "https://example.com/schema.json"}
LARGE = {"enum": ["x" * 2**20]}
NESTED = {"type": "string"}
for _ in range(90):
    NESTED = {"type": "array", "items": NESTED}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(model_dir):
    backend = ScriptBackend(model_dir)
    async with client_of(backend) as client:
        yield client, backend


def message(**fields):
    return {"messages": [{"role": "user", "content": "x", **fields}]}


def deep(levels):
    schema = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


CHAT_FIELDS = [
    ("temperature", -0.1),
    ("temperature", 2.1),
    ("temperature", "1"),
    ("temperature", True),
    ("temperature", [1]),
    ("top_p", 0),
    ("top_p", 1.01),
    ("top_k", -2),
    ("top_k", 1.5),
    ("min_p", -0.01),
    ("min_p", 1.01),
    ("frequency_penalty", 2.01),
    ("presence_penalty", -2.01),
    ("repetition_penalty", 0),
    ("repetition_penalty", 101),
    ("n", 0),
    ("n", 129),
    ("n", "2"),
    ("n", 10**30),
    ("best_of", 2),
    ("seed", 2**63),
    ("seed", -(2**63) - 1),
    ("seed", 1.5),
    ("stop", ""),
    ("stop", ["a", ""]),
    ("stop", list("abcde")),
    ("stop", "x" * 1025),
    ("stop", [1]),
    ("stop", {"a": 1}),
    ("stop_token_ids", [-1]),
    ("stop_token_ids", [258]),
    ("stop_token_ids", ["a"]),
    ("stop_token_ids", 5),
    ("min_tokens", -1),
    ("logit_bias", {"x": 1}),
    ("logit_bias", {"258": 1}),
    ("logit_bias", {"-1": 1}),
    ("logit_bias", {"5": 101}),
    ("logit_bias", {"5": "1"}),
    ("logit_bias", {"٣": 1}),
    ("logit_bias", [1]),
    ("max_tokens", 0),
    ("max_tokens", -1),
    ("max_tokens", 1.0),
    ("max_completion_tokens", 0),
    ("max_completion_tokens", "9"),
    ("logprobs", 1),
    ("top_logprobs", 1),
    ("stream", "yes"),
    ("stream_options", {}),
    ("ignore_eos", 1),
    ("skip_special_tokens", "no"),
    ("cache_salt", ""),
    ("cache_salt", "x" * 129),
    ("cache_salt", 1),
    ("priority", 1),
    ("priority", "high"),
    ("request_id", "a b"),
    ("request_id", "x" * 129),
    ("request_id", "a\n"),
    ("truncate_prompt_tokens", 0),
    ("add_generation_prompt", "yes"),
    ("chat_template_kwargs", {"no_such_name": 1}),
    ("chat_template_kwargs", {"tools": []}),
    ("chat_template_kwargs", {"messages": []}),
    ("chat_template_kwargs", []),
    ("reasoning_effort", 5),
    ("response_format", {"type": "json_object", "json_schema": {"name": "x"}}),
    ("response_format", {"type": "json_schema"}),
    ("response_format", {"type": "structural_tag"}),
    ("response_format", JSON_SCHEMA | {"json_schema": {"name": "x", "schema": {"type": 5}}}),
    ("response_format", JSON_SCHEMA | {"json_schema": {"name": "x", "schema": REMOTE}}),
    ("response_format", JSON_SCHEMA | {"json_schema": {"name": "x", "schema": NESTED}}),
    ("response_format", JSON_SCHEMA | {"json_schema": {"name": "x", "schema": LARGE}}),
    ("structured_outputs", {}),
    ("structured_outputs", {"json": {}, "regex": "a"}),
    ("structured_outputs", {"json_object": False}),
    ("structured_outputs", {"json": "{"}),
    ("structured_outputs", {"json": "[]"}),
    ("structured_outputs", {"json": REMOTE}),
    ("structured_outputs", {"json": {"not": {"type": "string"}}}),
    ("structured_outputs", {"json": {"type": "integer", "minimum": 5, "maximum": 3}}),
    ("structured_outputs", {"regex": "("}),
    ("structured_outputs", {"regex": ""}),
    ("structured_outputs", {"regex": "a" * 20_000}),
    ("structured_outputs", {"choice": []}),
    ("structured_outputs", {"choice": [""]}),
    ("structured_outputs", {"choice": ["x"] * 5000}),
    ("structured_outputs", {"grammar": "start: b"}),
    ("structured_outputs", {"whitespace_pattern": " *"}),
    ("structured_outputs", {"grammar": "start: <|no_such_token|>"}),
    ("response_format", "text"),
    ("tools", [{"type": "function", "function": {"name": "a b"}}]),
    ("tools", [{"type": "function", "function": {"name": "x" * 65}}]),
    ("tools", [{"type": "function", "function": {"name": "f"}}] * 2),
    ("tools", [{"type": "function", "function": {"name": f"f{n}"}} for n in range(129)]),
    ("tools", [{"type": "custom", "custom": {"name": "f"}}]),
    ("tools", [{"type": "function"}]),
    ("tools", {}),
    ("tools", [{"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}]),
    ("tools", [{"type": "function", "function": {"name": "f", "parameters": {"required": 1}}}]),
    ("tools", [{"type": "function", "function": {"name": "f", "parameters": deep(60)}}]),
    ("tools", [{"type": "function", "function": {"name": "f", "description": "x" * 270_000}}]),
    ("tool_choice", "auto"),
    ("tool_choice", "any"),
    ("tool_choice", {"type": "function"}),
    ("parallel_tool_calls", True),
    ("functions", []),
    ("function_call", "auto"),
    ("modalities", ["text", "audio"]),
    ("audio", {}),
    ("web_search_options", {}),
    ("prediction", {}),
    ("guided_json", {}),
    ("guided_regex", "a"),
    ("allowed_token_ids", []),
    ("allowed_token_ids", [258]),
    ("allowed_token_ids", [-1]),
    ("bad_words", [""]),
    ("bad_words", "x"),
    ("bad_words", ["x"] * 129),
    ("bad_words", ["x" * 1025]),
    ("prompt_logprobs", -1),
    ("prompt_logprobs", 21),
    ("prompt_logprobs", True),
    ("chat_template", "{{ x }}"),
    ("use_beam_search", True),
    ("length_penalty", 1.0),
    ("logits_processors", []),
    ("prompt_embeds", "AA"),
    ("vllm_xargs", {}),
    ("kv_transfer_params", {}),
    ("include_reasoning", "no"),
    ("add_special_tokens", True),
    ("temprature", 1),
    ("__proto__", 1),
    ("echo", True),
    ("messages", []),
    ("messages", "Hi"),
    ("messages", {}),
    ("model", 5),
]

PLACES = [
    (CHAT, {}, "messages"),
    (CHAT, {"messages": None}, "messages"),
    (CHAT, {"messages": [5]}, "messages[0]"),
    (CHAT, {"messages": [{"content": "x"}]}, "messages[0].role"),
    (CHAT, message(role="king"), "messages[0].role"),
    (CHAT, message(content=5), "messages[0].content"),
    (CHAT, message(content=None), "messages[0].content"),
    (CHAT, {"messages": [{"role": "user"}]}, "messages[0].content"),
    (CHAT, message(content=["x"]), "messages[0].content[0]"),
    (CHAT, message(content=[{"text": "x"}]), "messages[0].content[0].type"),
    (CHAT, message(content=[{"type": "text"}]), "messages[0].content[0].text"),
    (CHAT, message(content=[{"type": "poem", "text": "x"}]), "messages[0].content[0].type"),
    (CHAT, message(tool_calls=[{}]), "messages[0].tool_calls[0].function"),
    (
        CHAT,
        message(tool_calls=[{"function": {"name": "f", "arguments": "{}"}}]),
        "messages[0].tool_calls",
    ),
    (
        CHAT,
        message(role="assistant", tool_calls=[{"function": {"name": "f", "arguments": "{x"}}]),
        "messages[0].tool_calls[0].function.arguments",
    ),
    (
        CHAT,
        {**HELLO, "stream": True, "stream_options": {"include_usge": True}},
        "stream_options.include_usge",
    ),
    (
        CHAT,
        {**HELLO, "stream": True, "stream_options": {"include_usage": 1}},
        "stream_options.include_usage",
    ),
    (CHAT, {**HELLO, "min_tokens": 5, "max_tokens": 4}, "min_tokens"),
    (CHAT, {**HELLO, "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    (
        CHAT,
        {**HELLO, "continue_final_message": True, "add_generation_prompt": True},
        "continue_final_message",
    ),
    (CHAT, {**message(role="assistant", content=""), "continue_final_message": True}, None),
    (CHAT, message(content="x" * 300), "messages"),
    (CHAT, message(content="x" * 40_000), "messages"),
    (TEXT, {}, "prompt"),
    (TEXT, {"prompt": None}, "prompt"),
    (TEXT, {"prompt": ""}, "prompt"),
    (TEXT, {"prompt": []}, "prompt"),
    (TEXT, {"prompt": 5}, "prompt"),
    (TEXT, {"prompt": [1, "a"]}, "prompt"),
    (TEXT, {"prompt": ["a", [1]]}, "prompt"),
    (TEXT, {"prompt": [[1], []]}, "prompt"),
    (TEXT, {"prompt": [True]}, "prompt"),
    (TEXT, {"prompt": [1.5]}, "prompt"),
    (TEXT, {"prompt": [-1]}, "prompt"),
    (TEXT, {"prompt": [258]}, "prompt"),
    (TEXT, {"prompt": [[258]]}, "prompt"),
    (TEXT, {"prompt": {"a": 1}}, "prompt"),
    (TEXT, {"prompt": ["a"] * 129}, "prompt"),
    (TEXT, {"prompt": [1] * 257}, "prompt"),
    (TEXT, {"prompt": [1] * 250, "max_tokens": 7}, "prompt"),
    (TEXT, {"prompt": "a", "max_tokens": 0}, "max_tokens"),
    (TEXT, {"prompt": "a", "logprobs": 21}, "logprobs"),
    (TEXT, {"prompt": "a", "logprobs": True}, "logprobs"),
    (TEXT, {"prompt": "a", "logprobs": 1, "echo": True, "stream": True}, "logprobs"),
    (TEXT, {"prompt": "a", "prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
    (CHAT, {**HELLO, "prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
    (TEXT, {"prompt": "a", "suffix": "b"}, "suffix"),
    (TEXT, {"prompt": "a", "messages": []}, "messages"),
    (TEXT, {"prompt": ["a"] * 128, "n": 128}, "n"),
    ("/tokenize", {}, "prompt"),
    ("/tokenize", {"prompt": "a", **HELLO}, "prompt"),
    ("/tokenize", {"prompt": 5}, "prompt"),
    ("/tokenize", {"prompt": "a", "add_generation_prompt": True}, "add_generation_prompt"),
    ("/tokenize", {**HELLO, "add_special_tokens": True}, "add_special_tokens"),
    ("/tokenize", {**HELLO, "chat_template_kwargs": {"x": 1}}, "chat_template_kwargs"),
    ("/tokenize", {"prompt": "a", "color": 1}, "color"),
    ("/detokenize", {}, "tokens"),
    ("/detokenize", {"tokens": [258]}, "tokens"),
    ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
    ("/detokenize", {"tokens": "a"}, "tokens"),
]


async def refused(shared, path, body, status=400):
    """The error of a refused body; afterwards the server is as well as before."""
    client, backend = shared
    before = len(backend.requests)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await client.post(path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    assert len(answer.content) < 8192
    assert set(answer.json()) == {"error"}
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error" or status == 501
    assert len(backend.requests) == before
    assert (await client.get("/health")).status_code == 200
    return error


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("name", "value"), CHAT_FIELDS)
async def test_a_bad_field_is_named(shared, name, value):
    error = await refused(shared, CHAT, {**HELLO, name: value})
    found = error["param"]
    assert found == name or found.startswith((f"{name}[", f"{name}."))


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("path", "body", "param"), PLACES)
async def test_the_place_of_a_mistake_is_named(shared, path, body, param):
    error = await refused(shared, path, body)
    assert param is None or error["param"] == param


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"5",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b'{"messages": [{"role": "user", "content": "\xff"}]}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "\\ud800abc"}]}',
        b'{"messages": [{"role": "user", "content": "\\udc00\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": Infinity}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": 1e999}',
        b'{"messages": [{"role": "user", "content": "x"}],}',
        b'{"messages": [{"role": "user", "content": "x"}]} {}',
        b"[" * 100_000,
        b'{"messages":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
    ],
)
async def test_what_is_no_json_object_is_refused(shared, body):
    await refused(shared, CHAT, body)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_nearby_name_is_proposed(shared):
    error = await refused(shared, CHAT, {**HELLO, "temprature": 1})
    assert "did you mean temperature?" in error["message"]
    assert error["code"] == "unknown_parameter"


@pytest.mark.asyncio(loop_scope="module")
async def test_nothing_of_the_input_comes_back(shared):
    secret = "hunter2-" * 50
    for body in (
        {**HELLO, "temperature": secret},
        {**HELLO, "response_format": {"type": secret}},
        message(role=secret),
        message(content=[{"type": secret}]),
        {**HELLO, "chat_template_kwargs": {secret: 1}},
        {**HELLO, "logit_bias": {secret: 1}},
        {**HELLO, "request_id": secret},
    ):
        assert "hunter2" not in json.dumps(await refused(shared, CHAT, body))
    error = await refused(shared, CHAT, {**HELLO, "\x00\n" + secret: 1})
    assert error["param"].startswith("??hunter2")
    assert len(error["param"]) == 64


@pytest.mark.asyncio(loop_scope="module")
async def test_the_context_length_is_named_as_clients_expect(shared):
    error = await refused(shared, TEXT, {"prompt": [1] * 250, "max_tokens": 7})
    assert error["code"] == "context_length_exceeded"
    assert "maximum context length is 256 tokens" in error["message"]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", "video_url"])
async def test_media_are_refused_as_not_implemented(shared, kind):
    body = message(content=[{"type": kind, kind: {"url": "http://example.com/x.png"}}])
    error = await refused(shared, CHAT, body, 501)
    assert error["param"] == "messages[0].content[0].type"


@pytest.mark.asyncio(loop_scope="module")
async def test_an_unknown_model_is_404(shared):
    error = await refused(shared, CHAT, {**HELLO, "model": "gpt-9"}, 404)
    assert (error["param"], error["code"]) == ("model", "model_not_found")


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_only_json_is_read(shared, media_type):
    client, _ = shared
    answer = await client.post(
        CHAT, content=json.dumps(HELLO), headers={"content-type": media_type}
    )
    assert answer.status_code == 415
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    answer = await client.post(CHAT, json=HELLO, headers={"content-encoding": "gzip"})
    assert answer.status_code == 415


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("POST", "/v1/embeddings", 404),
        ("GET", "/v1/responses", 405),
        ("GET", "/v1/responses/resp_1", 404),
        ("DELETE", "/v1/responses/resp_1", 404),
        ("GET", "/v1/messages", 405),
        ("POST", "/v1/chat/completions/", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/metrics", 405),
        ("GET", "/static/../serve.py", 404),
        ("GET", "/static/%2e%2e%2fserve.py", 404),
        ("GET", "/static/no-such-file.js", 404),
    ],
)
async def test_unknown_paths_and_methods_have_the_one_shape(shared, method, path, status):
    client, _ = shared
    answer = await client.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"]
    assert status != 405 or answer.headers["allow"]


@pytest.mark.asyncio(loop_scope="module")
async def test_what_the_engine_refuses_keeps_its_status_even_in_a_stream(shared):
    from rtp_core.errors import RequestError

    client, backend = shared
    backend.refuse = RequestError("prompt", "cannot ever fit", code="context_length_exceeded")
    try:
        for stream in (False, True):
            answer = await client.post(CHAT, json={**HELLO, "stream": stream})
            assert answer.status_code == 400
            assert answer.json()["error"]["code"] == "context_length_exceeded"
    finally:
        backend.refuse = None


@pytest.mark.asyncio(loop_scope="module")
async def test_a_bug_is_a_500_that_tells_nothing(shared):
    client, backend = shared
    backend.refuse = KeyError("/secret/path")
    try:
        answer = await client.post(CHAT, json=HELLO)
    finally:
        backend.refuse = None
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["error"]["type"] == "server_error"
