"""Bodies that are wrong, at every operation that takes one, and fields nobody may set."""

from __future__ import annotations

import json

import pytest
from target import CHAT, HELLO, TEXT

from rtp_core.server.schema.anthropic import MESSAGES_IGNORED, MESSAGES_REFUSED
from rtp_core.server.schema.refused import IGNORED, REFUSED
from rtp_core.server.schema.responses import RESPONSES_REFUSED

MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"
DEEP = b'{"a":' * 9999 + b"1" + b"}" * 9999
GOOD = {
    CHAT: HELLO,
    TEXT: {"prompt": "Hi"},
    RESPONSES: {"input": "Hi"},
    MESSAGES: {**HELLO, "max_tokens": 9},
    "/v1/messages/count_tokens": HELLO,
    "/tokenize": {"prompt": "Hi"},
    "/detokenize": {"tokens": [72]},
}


def spoilt(good: dict) -> dict[str, bytes]:
    """Ways in which bytes around a good body are no JSON object in UTF-8."""
    text = json.dumps(good).encode()
    return {
        "nothing": b"",
        "blank": b" \n\t ",
        "half": text[: len(text) // 2],
        "more": text + b" {}",
        "list": b"[" + text + b"]",
        "string": json.dumps(text.decode()).encode(),
        "number": b"1",
        "null": b"null",
        "mark of order": b"\xef\xbb\xbf" + text,
        "utf-16": text.decode().encode("utf-16"),
        "utf-32": text.decode().encode("utf-32-le"),
        "no utf-8": text.replace(b"{", b'{"\xff":1,', 1),
        "overlong": text.replace(b"{", b'{"\xc0\xaf":1,', 1),
        "surrogate": text.replace(b"{", b'{"\\ud800":1,', 1),
        "null byte": text + b"\x00",
        "control": text.replace(b"{", b'{"a\nb":1,', 1),
        "NaN": text.replace(b"{", b'{"temperature":NaN,', 1),
        "Infinity": text.replace(b"{", b'{"temperature":-Infinity,', 1),
        "hexadecimal": text.replace(b"{", b'{"temperature":0x1,', 1),
        "leading zero": text.replace(b"{", b'{"temperature":01,', 1),
        "plus": text.replace(b"{", b'{"temperature":+1,', 1),
        "point": text.replace(b"{", b'{"temperature":1.,', 1),
        "beyond": text.replace(b"{", b'{"temperature":1e999,', 1),
        "true": text.replace(b"{", b'{"temperature":True,', 1),
        "comment": text.replace(b"{", b"{/* */", 1),
        "comma": text[:-1] + b",}",
        "quotes": text.replace(b'"', b"'"),
        "no name": text.replace(b"{", b"{1:1,", 1),
        "deep": text.replace(b"{", b'{"user":' + b"[" * 9999 + b"]" * 9999 + b",", 1),
        "deep objects": text.replace(b"{", b'{"user":' + DEEP + b",", 1),
    }  # fmt: skip


@pytest.mark.parametrize("path", GOOD)
@pytest.mark.parametrize("how", spoilt(HELLO))
def test_what_is_no_object_is_refused(target, path, how):
    answer = target.post(path, spoilt(GOOD[path])[how])
    assert answer.status_code == 400, answer.text
    assert len(answer.content) < 2000
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert "internal" not in error["message"]


@pytest.mark.parametrize("path", GOOD)
def test_the_good_body_is_taken(target, path):
    assert target.post(path, GOOD[path]).status_code == 200


VALUES = [1, -1, 0.5, True, "x", "", [], [1], ["x"], {}, {"a": 1}, [[]], [{}], "\u0000", 10**18]


@pytest.mark.parametrize("path", GOOD)
def test_every_field_takes_any_value_or_refuses_it(target, path):
    """As the description lists them: 400 or an answer, and null is always the default."""
    document = target.client.get("/openapi.json").json()
    body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    schema = document["components"]["schemas"][body["$ref"].rpartition("/")[2]]
    assert set(GOOD[path]) <= set(schema["properties"])
    for name in schema["properties"]:
        for value in VALUES:
            answer = target.post(path, {**GOOD[path], name: value})
            assert answer.status_code in (200, 400, 404), (name, value, answer.text)
        if name not in GOOD[path]:
            assert target.post(path, {**GOOD[path], name: None}).status_code == 200, name


REFUSALS = [
    *((path, name) for path in (CHAT, TEXT) for name in REFUSED),
    *((RESPONSES, name) for name in RESPONSES_REFUSED),
    *((MESSAGES, name) for name in MESSAGES_REFUSED),
]


@pytest.mark.parametrize(("path", "name"), REFUSALS)
def test_every_field_that_is_refused_is_named_with_a_reason(target, path, name):
    for value in (1, "x", [], {}, True, [{"a": 1}]):
        answer = target.post(path, {**GOOD[path], name: value})
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert name in (error.get("param"), error["message"].partition(":")[0])
        assert len(error["message"]) > len(name) + 10
    assert target.post(path, {**GOOD[path], name: None}).status_code == 200


@pytest.mark.parametrize(
    ("path", "name"),
    [*((CHAT, name) for name in IGNORED), *((MESSAGES, name) for name in MESSAGES_IGNORED)],
)
def test_every_field_that_is_ignored_changes_nothing(target, path, name):
    for value in (1, "x", [], {"a": 1}, True, None):
        assert target.post(path, {**GOOD[path], name: value}).status_code == 200


def test_every_operation_that_asks_for_a_key_asks_first(target):
    """Before it reads a body; whatever the method."""
    document = target.client.get("/openapi.json").json()
    asked = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if not operation["security"]:
                continue
            asked += 1
            for key in ("", "Bearer", "Bearer wrong", "bearer first,second", "Basic Zmlyc3Q="):
                answer = target.client.request(
                    method, path.replace("{id}", "x"), headers={"authorization": key}, content=b"{"
                )
                assert answer.status_code == 401, (method, path)
    assert asked >= 15
    public = {
        path for path, methods in document["paths"].items()
        for operation in methods.values() if not operation["security"]
    }  # fmt: skip
    assert public <= {"/health", "/ping", "/version", "/", "/static/{file}"}
