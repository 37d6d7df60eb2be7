"""Nothing a client makes large, deep, slow or many holds the server up.

Classes: vLLM CVE-2025-48956 (headers), CVE-2024-8939 (best_of), CVE-2024-8768 and CVE-2026-34756
(n), CVE-2025-46560 (placeholders that grow quadratically), and the JSON itself.
"""

from __future__ import annotations

import contextlib
import json
import time

import pytest
from target import CHAT, HELLO, TEXT

MIB = 2**20
USERS = b'[{"role":"user","content":"x"}]'


def many(item: bytes, number: int) -> bytes:
    return b"[" + b",".join([item] * number) + b"]"


def names(number: int) -> bytes:
    return b"{" + b",".join(b'"%d":1' % at for at in range(number)) + b"}"


def chat(messages: bytes = USERS, **fields: bytes) -> bytes:
    rest = b"".join(b',"%s":%s' % (name.encode(), value) for name, value in fields.items())
    return b'{"messages":' + messages + rest + b"}"


def part(fields: bytes) -> bytes:
    return b'[{"role":"user","content":' + fields + b"}]"


CALL = b'{"function":{"name":"f","arguments":"{}"}}'
LONG = b'"' + b"a" * (31 * MIB) + b'"'
LARGE = {
    "ids": (TEXT, lambda: b'{"prompt":' + many(b"1", 15 * MIB) + b"}"),
    "ids below the bound": (TEXT, lambda: b'{"prompt":' + many(b"1", 2 * MIB - 99) + b"}"),
    "prompts": (TEXT, lambda: b'{"prompt":' + many(b'"a"', 2 * MIB - 99) + b"}"),
    "objects as prompts": (TEXT, lambda: b'{"prompt":' + many(b"{}", 6 * MIB // 10) + b"}"),
    "text": (TEXT, lambda: b'{"prompt":' + LONG + b"}"),
    "escaped text": (TEXT, lambda: b'{"prompt":"' + rb"\u00e9" * (5 * MIB) + b'"}'),
    "messages": (CHAT, lambda: chat(many(USERS[1:-1], MIB))),
    "messages below the bound": (CHAT, lambda: chat(many(USERS[1:-1], 2 * MIB // 10))),
    "parts": (CHAT, lambda: chat(part(many(b'{"type":"text","text":"x"}', 2 * MIB // 10)))),
    "calls": (
        CHAT,
        lambda: chat(b'[{"role":"assistant","tool_calls":' + many(CALL, MIB // 8) + b"}]"),
    ),
    "arguments": (
        CHAT,
        lambda: chat(
            b'[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":'
            b'"{\\"a\\":\\"' + b"xyz " * (7 * MIB) + b'\\"}"}}]}]'
        ),
    ),
    "variables": (CHAT, lambda: chat(chat_template_kwargs=b'{"enable_thinking":' + LONG + b"}")),
    "names of variables": (CHAT, lambda: chat(chat_template_kwargs=names(2 * MIB // 3))),
    "fields": (CHAT, lambda: b'{"messages":' + USERS + b"," + names(2 * MIB // 3)[1:]),
    "a field's name": (CHAT, lambda: chat(**{"x" * (30 * MIB): b"1"})),
    "biases": (CHAT, lambda: chat(logit_bias=names(2 * MIB // 3))),
    "biases of one id": (
        CHAT,
        lambda: chat(
            logit_bias=b"{" + b",".join(b'"%010d":1' % at for at in range(MIB // 2)) + b"}"
        ),
    ),
    "stop ids": (CHAT, lambda: chat(stop_token_ids=many(b"1", 2 * MIB - 99))),
    "stops": (CHAT, lambda: chat(stop=many(b'"a"', 2 * MIB - 99))),
    "banned words": (CHAT, lambda: chat(bad_words=many(b'"a"', 2 * MIB - 99))),
    "schema": (
        CHAT,
        lambda: chat(
            response_format=b'{"type":"json_schema","json_schema":{"name":"x","schema":'
            + names(2 * MIB // 3) + b"}}"
        ),
    ),
    "choices": (
        CHAT,
        lambda: chat(structured_outputs=b'{"choice":' + many(b'"a"', 2 * MIB - 99) + b"}"),
    ),
    "pattern": (CHAT, lambda: chat(structured_outputs=b'{"regex":' + LONG + b"}")),
    "grammar": (CHAT, lambda: chat(structured_outputs=b'{"grammar":' + LONG + b"}")),
    "schema in a string": (
        CHAT,
        lambda: chat(structured_outputs=b'{"json":"' + b"[" * (2 * MIB // 3) + b'"}'),
    ),
    "tools": (
        CHAT,
        lambda: chat(tools=many(b'{"type":"function","function":{"name":"f"}}', MIB // 8)),
    ),
    "parameters": (
        CHAT,
        lambda: chat(
            tools=b'[{"type":"function","function":{"name":"f","parameters":{"properties":'
            + names(2 * MIB // 3) + b"}}}]"
        ),
    ),
    "digits": (CHAT, lambda: chat(seed=b"1" * (31 * MIB))),
    "brackets": (CHAT, lambda: b"[" * (31 * MIB)),
    "nested": (CHAT, lambda: chat(b'{"a":' * 500_000 + b"1" + b"}" * 500_000)),
    "turns": (
        "/v1/messages",
        lambda: b'{"max_tokens":1,"messages":' + many(USERS[1:-1], 2 * MIB // 10) + b"}",
    ),
    "items": ("/v1/responses", lambda: b'{"input":' + many(USERS[1:-1], 2 * MIB // 10) + b"}"),
    "text to count": ("/tokenize", lambda: b'{"prompt":' + LONG + b"}"),
    "ids to spell": ("/detokenize", lambda: b'{"tokens":' + many(b"1", 15 * MIB) + b"}"),
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_a_large_body_costs_little(target, name):
    """Seconds of the server's own time: a tenth of a second reads 30 MB, one is a hang.

    Without bounds the worst of these took 15 s and 2 GB.
    """
    path, make = LARGE[name]
    body = make()
    assert len(body) < 32 * MIB
    before = target.vitals()
    answer = target.post(path, body)
    used = target.vitals()
    assert answer.status_code in (400, 413), answer.text[:300]
    assert len(answer.content) < 8192
    assert used.cpu_s - before.cpu_s < 1.5
    assert used.rss - before.rss < 256 * MIB


def test_the_memory_of_large_bodies_comes_back(target):
    """A refusal's traceback once kept its body until the garbage collector came by."""
    body = chat(many(USERS[1:-1], 2 * MIB // 10))
    for _ in range(3):
        target.post(CHAT, body)
    before = target.vitals()
    for _ in range(5):
        target.post(CHAT, body)
    assert target.vitals().rss - before.rss < 24 * MIB


def test_a_repeated_field_has_its_last_value_and_costs_nothing(target):
    body = b"{" + b'"messages":1,' * (2 * MIB // 3 - 99) + b'"messages":' + USERS + b"}"
    before = target.vitals()
    assert target.post(CHAT, body).status_code == 200
    assert target.vitals().cpu_s - before.cpu_s < 1.0
    answer = target.post(CHAT, b'{"messages":' + USERS + b',"temperature":1,"temperature":9}')
    assert answer.json()["error"]["param"] == "temperature"


NUMBERS = [
    (CHAT, "n", 10**9),
    (CHAT, "n", 129),
    (CHAT, "best_of", 10**9),
    (CHAT, "max_tokens", 10**9),
    (CHAT, "max_tokens", 10**30),
    (CHAT, "min_tokens", 10**30),
    (CHAT, "top_k", 2**31),
    (CHAT, "top_k", 10**4000),
    (CHAT, "seed", 10**4000),
    (CHAT, "prompt_logprobs", 10**9),
    (CHAT, "truncate_prompt_tokens", 10**30),
    (CHAT, "temperature", 10**400),
    (CHAT, "priority", 10**30),
    (TEXT, "n", 10**9),
    (TEXT, "best_of", 10**9),
    (TEXT, "logprobs", 10**9),
    (TEXT, "top_k", -(10**400)),
    ("/v1/messages", "top_k", 10**30),
    ("/v1/messages", "max_tokens", 10**30),
    ("/v1/responses", "top_logprobs", 10**9),
    ("/v1/responses", "max_output_tokens", 10**30),
]


@pytest.mark.parametrize(("path", "name", "value"), NUMBERS)
def test_numbers_have_bounds(target, path, name, value):
    """vLLM CVE-2024-8939, CVE-2024-8768, CVE-2026-34756: work without end for one number."""
    bodies = {
        CHAT: HELLO,
        TEXT: {"prompt": "Hi"},
        "/v1/messages": {**HELLO, "max_tokens": 5},
        "/v1/responses": {"input": "Hi"},
    }
    body = json.dumps({**bodies[path], name: 0}).replace(
        f'"{name}": 0', f'"{name}": {_text(value)}'
    )
    answer = target.post(path, body.encode())
    assert answer.status_code == 400, answer.text
    assert name in answer.text or "JSON" in answer.text
    assert len(answer.content) < 2000


def _text(value: int) -> str:
    """Decimal, of integers too long for str()."""
    digits, sign = abs(value), "-" if value < 0 else ""
    power = 0
    while digits % 10**100 == 0 and digits:
        digits //= 10**100
        power += 100
    return f"{sign}{digits}{'0' * power}"


def test_hundreds_of_slow_clients_leave_room_for_others(target):
    """Slowloris: headers and bodies that never come, each until its own time is over."""
    starts = [b"", b"POST ", b"POST / HTTP/1.1\r\nX: ", _head(b"Content-Length: 99") + b"{"]
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(target.connection()) for _ in range(400)]
        for at, connection in enumerate(held):
            connection.sendall(starts[at % len(starts)])
        for _ in range(4):
            began = time.monotonic()
            assert target.post(CHAT, HELLO).status_code == 200
            assert time.monotonic() - began < 3
            time.sleep(0.2)
        end = time.monotonic() + 20
        while target.vitals().files > 60:
            assert time.monotonic() < end, "slow connections were kept"
            for connection in held[::7]:
                with contextlib.suppress(OSError):
                    connection.sendall(b"x")
            time.sleep(0.2)


def _head(line: bytes) -> bytes:
    start = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer first\r\n"
    return start + b"Content-Type: application/json\r\n" + line + b"\r\n\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        b"X: " + b"a" * (7 * MIB),
        b"X: a\r\n" * 200_000,
        b"\r\n".join(b"X-%d: a" % at for at in range(100_000)),
        b"Cookie: " + b"a=b; " * 100_000,
    ],
)
def test_headers_have_bounds(target, headers):
    """vLLM CVE-2025-48956: a header block of megabytes was held whole."""
    before = target.vitals()
    answer = target.raw(_head(headers.rstrip()), 5)
    assert answer.startswith(b"HTTP/1.1 431")
    used = target.vitals()
    assert used.rss - before.rss < 24 * MIB
    assert used.cpu_s - before.cpu_s < 1.0


@pytest.mark.parametrize("size", [4000, 60_000])
def test_a_long_path_or_query_is_an_error_or_ignored(target, size):
    for path in (
        "/" + "a" * size,
        "/v1/models/" + "%2e" * (size // 3),
        "/health?" + "a=b&" * (size // 4),
    ):
        assert target.client.get(path).status_code in (200, 404, 414, 431)
