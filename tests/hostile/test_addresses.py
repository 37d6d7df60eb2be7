"""No address that a client names is visited, and no path it names leaves its folder.

Requests of the server: vLLM CVE-2025-6242, CVE-2026-24779, -25960, -22778, -22773, TGI
CVE-2026-0599. Tensors of clients: vLLM CVE-2025-62164, -62372. Templates of clients: vLLM
CVE-2025-61620, -62426.
"""

from __future__ import annotations

import base64
import socket
import threading

import pytest
from target import CHAT, HELLO, KEY, TEXT

MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"


@pytest.fixture(scope="module")
def trap():
    """A port that counts who comes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        caught = []

        def wait():
            while True:
                try:
                    connection, peer = listener.accept()
                except OSError:
                    return
                caught.append(peer)
                connection.close()

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/x.png", caught
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def user(*parts, **more):
    return {"messages": [{"role": "user", "content": list(parts)}], **more}


def asks(url):
    """Every place of every body where a client could name an address."""
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": url}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"$ref": url}}}
    source = {"type": "url", "url": url}
    yield CHAT, user({"type": "image_url", "image_url": {"url": url}})
    yield CHAT, user({"type": "image_url", "image_url": url})
    yield CHAT, user({"type": "input_image", "image_url": url})
    yield CHAT, user({"type": "video_url", "video_url": {"url": url}})
    yield CHAT, user({"type": "audio_url", "audio_url": {"url": url}})
    yield CHAT, user({"type": "input_audio", "input_audio": {"data": url, "format": "wav"}})
    yield CHAT, user({"type": "file", "file": {"file_data": url, "file_id": url}})
    yield CHAT, {**HELLO, "response_format": schema}
    yield CHAT, {**HELLO, "structured_outputs": {"json": {"$ref": url}}}
    yield CHAT, {**HELLO, "structured_outputs": {"json": {"$schema": url, "$id": url, "$ref": "a"}}}
    yield CHAT, {**HELLO, "structured_outputs": {"grammar": f'%import "{url}" (x)\nstart: x'}}
    yield CHAT, {**HELLO, "tools": [tool], "tool_choice": "required"}
    yield CHAT, {**HELLO, "chat_template": url}
    yield CHAT, {**HELLO, "model": url}
    yield CHAT, {**HELLO, "documents": [{"url": url}]}
    yield CHAT, {**HELLO, "web_search_options": {"url": url}}
    yield CHAT, {**HELLO, "kv_transfer_params": {"remote_host": url}}
    yield TEXT, {"prompt": "x", "kv_transfer_params": {"remote_host": url}}
    yield MESSAGES, user({"type": "image", "source": source}, max_tokens=5)
    yield MESSAGES, user({"type": "document", "source": source}, max_tokens=5)
    yield MESSAGES, {**HELLO, "max_tokens": 5, "mcp_servers": [source]}
    yield RESPONSES, {"input": [{"role": "user", "content": [
        {"type": "input_image", "image_url": url}]}]}  # fmt: skip
    yield RESPONSES, {"input": [{"role": "user", "content": [
        {"type": "input_file", "file_url": url}]}]}  # fmt: skip
    yield RESPONSES, {"input": "x", "tools": [{"type": "mcp", "server_url": url}]}
    yield RESPONSES, {"input": "x", "tools": [{"type": "web_search"}]}


FORMS = [
    "{}",
    "http://evil@{host}/x.png",
    "http://{host}\\@example.com/x.png",
    "//{host}/x.png",
    "file:///etc/passwd",
    "/etc/passwd",
    "gopher://{host}/",
    "data:text/html;base64,AAAA",
]


@pytest.mark.parametrize("form", FORMS)
def test_no_address_is_visited(target, trap, form):
    url, caught = trap
    host = url.split("/")[2]
    for path, body in asks(form.format(url, host=host)):
        answer = target.post(path, body)
        assert answer.status_code in (400, 404, 501), (body, answer.text)
        assert "root:" not in answer.text
    assert caught == []


def test_addresses_in_headers_are_not_visited_either(target, trap):
    url, caught = trap
    host = url.split("/")[2]
    for name in ("host", "x-forwarded-host", "x-forwarded-for", "forwarded", "referer", "origin",
                 "traceparent", "x-original-url", "x-rewrite-url", "destination"):  # fmt: skip
        answer = target.client.get(
            "/v1/models", headers={**KEY, name: host}, follow_redirects=False
        )
        assert answer.status_code in (200, 400)
        assert host not in answer.text
        assert "location" not in answer.headers
    assert caught == []


TENSORS = [
    base64.b64encode(b"PK\x03\x04").decode(),
    base64.b64encode(b"\x80\x02cposix\nsystem\n").decode(),
    ["AA=="],
    [[0.5, 0.5]],
    {"data": "AA==", "shape": [2**62], "dtype": "float32"},
]


@pytest.mark.parametrize("tensor", TENSORS)
@pytest.mark.parametrize(("path", "body"), [(CHAT, HELLO), (TEXT, {}), (TEXT, {"prompt": "x"})])
def test_tensors_of_clients_are_refused(target, path, body, tensor):
    """vLLM CVE-2025-62164: torch.load of what a client called embeddings."""
    answer = target.post(path, {**body, "prompt_embeds": tensor})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "prompt_embeds"


@pytest.mark.parametrize(
    "variables",
    [
        {"chat_template": "{{ ''.__class__ }}"},
        {"tokenize": False},
        {"tokenizer": 1},
        {"template": 1},
        {"function": 1},
        {"self": 1},
        {"messages": []},
        {"add_generation_prompt": False},
        {"continue_final_message": True},
        {"tools": [{}]},
        {"documents": []},
        {"bos_token": "x"},
        {"__rtp_check__": 1},
        {"raise_exception": 1},
        {"cycler": 1},
        {"": 1},
        {"max_chars": 1},
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/tokenize"])
def test_only_variables_of_the_template_are_set(target, path, variables):
    """vLLM CVE-2025-61620 and -62426: these became arguments of the tokenizer's own function."""
    answer = target.post(path, {**HELLO, "chat_template_kwargs": variables})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == "chat_template_kwargs"


@pytest.mark.parametrize(
    "value",
    [[], {}, [[[[1]]]], {"a": {"b": "c"}}, "x" * 1000, 10**300, 1e308, -1, None, "{{ 7*7 }}",
     ["<|im_end|>"]],
)  # fmt: skip
def test_a_variable_may_have_any_value(target, value):
    answer = target.post(CHAT, {**HELLO, "chat_template_kwargs": {"enable_thinking": value}})
    assert answer.status_code in (200, 400), answer.text


OUTSIDE = [
    "..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/etc/passwd",
    "..%5c..%5cetc%5cpasswd",
    "....//....//etc/passwd",
    "..%c0%afetc%c0%afpasswd",
    "..%00/etc/passwd",
    "%2fetc%2fpasswd",
    "//etc/passwd",
    "app.js%00.html",
    "app.js/../../page.py",
    "..",
    ".",
    "%252e%252e%252fpage.py",
    "page.py",
    "__init__.py",
    "file:///etc/passwd",
    "C:%5cwindows",
    "~root/.bashrc",
]


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("prefix", ["/static/", "/v1/models/", "/v1/responses/", "/"])
def test_no_path_leaves_its_folder(target, prefix, outside):
    request = f"GET {prefix}{outside} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer first\r\n"
    answer = target.raw(request.encode() + b"Connection: close\r\n\r\n", 5)
    status = int(answer.split()[1])
    assert status in (400, 404), answer[:200]
    assert b"root:" not in answer
    assert b"import" not in answer


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "/etc/passwd", "..\\..", "demo/../demo", "demo\x00", "demo\n", "%2e%2e",
     "file:///etc/passwd", "hf://x", "s3://x/y", "", " demo", "DEMO", "x" * 100_000],
)  # fmt: skip
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, HELLO),
        (TEXT, {"prompt": "x"}),
        (MESSAGES, {**HELLO, "max_tokens": 5}),
        (RESPONSES, {"input": "x"}),
        ("/tokenize", {"prompt": "x"}),
        ("/detokenize", {"tokens": [1]}),
    ],
)
def test_a_model_is_a_name_in_a_list(target, path, body, name):
    answer = target.post(path, {**body, "model": name})
    assert answer.status_code == 404, answer.text
    assert len(answer.content) < 1000
    assert name in ("", " demo", "DEMO") or name not in answer.text
