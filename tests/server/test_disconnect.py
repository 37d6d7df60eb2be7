"""A client that leaves, in any phase, ends its work at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time

import httpx
import pytest
from kit import LiveServer, ScriptBackend, settings, wait_for

from rtp_core.api import TokenEvent
from rtp_core.server.limits import Limits

HELLO = {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(scope="module")
def server(model_dir):
    limits = Limits(refusal_grace_s=0.1, write_timeout_s=0.5)
    server = LiveServer(lambda: ScriptBackend(model_dir), settings(port=0), limits)
    server.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
    with server:
        yield server


@pytest.fixture
def backend(server):
    backend = server.backend
    yield backend

    def reset():
        backend.gate.set()
        backend.step_s = 0.0
        backend.script = ("Hello, world!",)

    server.on_loop(reset)
    wait_for(lambda: not backend.live)


def send(server, body, path="/v1/chat/completions", window=None):
    """A raw connection with the request on its way; `window` bounds what the kernel takes."""
    content = json.dumps(body).encode()
    connection = socket.socket()
    if window is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    connection.connect(("127.0.0.1", server.port))
    connection.sendall(
        b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (path.encode(), len(content), content)
    )
    return connection


def received(connection):
    """What arrives until the connection is closed or reset."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 20):
            parts.append(part)
    return b"".join(parts)


def running(server):
    page = httpx.get(f"{server.url}/metrics").text
    (line,) = [one for one in page.splitlines() if one.startswith("rtp:num_requests_running{")]
    return float(line.rsplit(" ", 1)[1])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fields", [{}, {"n": 4}])
@pytest.mark.parametrize("phase", ["queue", "decode"])
def test_leaving_aborts_every_choice(server, backend, phase, fields, stream):
    if phase == "queue":
        server.on_loop(backend.gate.clear)
    else:
        server.on_loop(lambda: setattr(backend, "step_s", 0.02))
    body = {**HELLO, **fields, "stream": stream, "ignore_eos": True, "max_tokens": 200}
    connection = send(server, body)
    wait_for(lambda: len(backend.live) == 1)
    request = backend.requests[-1].request_id
    if phase == "decode":
        time.sleep(0.1)
    began = time.monotonic()
    connection.close()
    wait_for(lambda: not backend.live, 2.0)
    assert time.monotonic() - began < 2.0
    assert request in backend.aborted
    assert running(server) == 0
    rows = httpx.get(f"{server.url}/v1/stats").json()["requests"]
    assert rows[0]["status"] == 499
    assert rows[0]["finish_reason"] == "abort"


def test_leaving_aborts_every_prompt(server, backend):
    server.on_loop(backend.gate.clear)
    connection = send(server, {"prompt": ["a", "b", "c"], "n": 2}, "/v1/completions")
    wait_for(lambda: len(backend.live) == 3)
    connection.close()
    wait_for(lambda: not backend.live, 2.0)
    assert len(set(backend.aborted)) >= 3


def test_places_in_the_queue_come_back(model_dir):
    config = settings(port=0, max_queued_requests=2)
    with LiveServer(lambda: ScriptBackend(model_dir), config) as server:
        server.on_loop(server.backend.gate.clear)
        for _ in range(4):
            waiting = [send(server, HELLO) for _ in range(2)]
            wait_for(lambda: len(server.backend.live) == 2)
            for connection in waiting:
                connection.close()
            wait_for(lambda: not server.backend.live)
        server.on_loop(server.backend.gate.set)
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=HELLO)
        assert answer.status_code == 200


def test_a_client_that_never_reads_is_cut_off(server, backend):
    """The engine's output stops being taken long before it is all in memory."""
    made = []

    async def endless(request):
        while True:
            await asyncio.sleep(0)
            made.append(1)
            yield TokenEvent(request.request_id, 0, (65,) * 1000)

    def flood():
        backend._events = endless

    server.on_loop(flood)
    try:
        connection = send(server, {**HELLO, "stream": True}, window=4096)
        wait_for(lambda: len(backend.live) == 1)
        wait_for(lambda: not backend.live, 10.0)
        assert len(made) < 2000
        connection.settimeout(5)
        assert not received(connection).endswith(b"0\r\n\r\n")  # cut, not ended
        connection.close()
    finally:
        server.on_loop(lambda: backend.__dict__.pop("_events"))
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_a_silent_stream_shows_signs_of_life(model_dir):
    config = settings(port=0, keep_alive_s=0.05)
    limits = Limits(refusal_grace_s=0.01)
    with LiveServer(lambda: ScriptBackend(model_dir), config, limits) as server:
        server.on_loop(server.backend.gate.clear)
        seen = b""
        with httpx.stream(
            "POST", f"{server.url}/v1/chat/completions", json={**HELLO, "stream": True}
        ) as answer:
            for part in answer.iter_raw():
                seen += part
                if seen.count(b": keep-alive\n\n") == 3:
                    server.on_loop(server.backend.gate.set)
        assert seen.endswith(b"data: [DONE]\n\n")
        assert seen.count(b"Hello") <= 1
