"""Bounds on what a connection may send, over real sockets."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import threading
import time

import httpx
import pytest
from kit import LiveServer, ScriptBackend, settings, wait_for

from rtp_core.server.limits import Limits

HELLO = json.dumps({"messages": [{"role": "user", "content": "Hi"}]}).encode()
MIB = 2**20


@pytest.fixture(scope="module")
def server(model_dir):
    with LiveServer(lambda: ScriptBackend(model_dir), settings(port=0)) as server:
        yield server
        assert httpx.get(f"{server.url}/health").status_code == 200


@pytest.fixture(scope="module")
def hasty(model_dir):
    """A server that waits for nobody."""
    limits = Limits(header_timeout_s=0.4, body_timeout_s=0.4)
    with LiveServer(lambda: ScriptBackend(model_dir), settings(port=0), limits) as server:
        yield server


def connect(server):
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.settimeout(10)
    return connection


def read_all(connection):
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def read_answer(connection):
    """One response, as far as its content-length says."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536) or b"\r\n\r\n"
    start, _, body = data.partition(b"\r\n\r\n")
    length = int(start.lower().partition(b"content-length: ")[2].split()[0])
    while len(body) < length:
        body += connection.recv(65536)
    return start + b"\r\n\r\n" + body


def head(length=None, *more):
    lines = [b"POST /v1/chat/completions HTTP/1.1", b"Host: x", b"Content-Type: application/json"]
    lines.append(
        b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    )
    return b"\r\n".join([*lines, *more, b"", b""])


def parsed(answer):
    """Status and error of a raw response."""
    start, _, body = answer.partition(b"\r\n\r\n")
    return int(start.split()[1]), json.loads(body)["error"], start.lower()


def test_a_body_above_the_limit_is_413_to_a_client_that_sends_all_of_it(server):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    body = memoryview(bytes(100 * MIB))
    answer = httpx.post(
        f"{server.url}/v1/chat/completions",
        content=iter([body[at : at + MIB] for at in range(0, len(body), MIB)]),
        headers={"content-type": "application/json"},
        timeout=30,
    )
    assert answer.status_code == 413
    assert "server.max_body_bytes" in answer.json()["error"]["message"]
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < (100 + 80) * 1024  # the body here, and less than two bodies there


def test_a_declared_length_above_the_limit_is_413(server):
    request = head(100 * MIB) + bytes(100 * MIB)
    with connect(server) as connection:
        sender = threading.Thread(target=lambda: connection.sendall(request))
        sender.start()
        answer = read_answer(connection)
        sender.join()
    status, error, _ = parsed(answer)
    assert status == 413
    assert set(error) == {"message", "type", "param", "code"}


def test_a_client_that_asks_first_need_not_send(server):
    with connect(server) as connection:
        connection.sendall(head(100 * MIB, b"Expect: 100-continue"))
        status, _, start = parsed(read_all(connection))
    assert status == 413
    assert b"connection: close" in start


def test_a_refusal_before_the_body_is_readable(server):
    """A wrong media type is told only after the client could send everything."""
    body = bytes(4 * MIB)
    answer = httpx.post(
        f"{server.url}/v1/chat/completions", content=body, headers={"content-type": "text/plain"}
    )
    assert answer.status_code == 415


def test_a_slow_body_is_408(hasty):
    with connect(hasty) as connection:
        connection.sendall(head(len(HELLO)) + HELLO[:10])
        status, _, start = parsed(read_all(connection))
    assert status == 408
    assert b"connection: close" in start


def test_a_dripping_body_is_408(hasty):
    with connect(hasty) as connection:
        connection.sendall(head(1000))
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - began < 5:
                connection.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() - began < 4


@pytest.mark.parametrize("size", [70_000, 200_000, 7_000_000])
def test_headers_above_the_limit_are_431(server, size):
    request = head(0, b"X-Big: " + b"x" * size)
    with connect(server) as connection:
        sender = threading.Thread(target=lambda: _send(connection, request))
        sender.start()
        status, error, _ = parsed(read_answer(connection))
        sender.join()
    assert status == 431
    assert set(error) == {"message", "type", "param", "code"}


def _send(connection, data):
    with contextlib.suppress(OSError):  # cut off in the middle
        connection.sendall(data)


def test_headers_below_the_limit_are_read(server):
    with connect(server) as connection:
        connection.sendall(
            head(len(HELLO), b"X-Big: " + b"x" * 60_000, b"Connection: close") + HELLO
        )
        assert read_all(connection).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("start", [b"", b"POST / HTTP/1.1\r\nHost:"])
def test_headers_that_never_come_close_the_connection(hasty, start):
    with connect(hasty) as connection:
        connection.sendall(start)
        began = time.monotonic()
        status, error, _ = parsed(read_all(connection))
        assert time.monotonic() - began < 3
    assert status == 408
    assert "headers" in error["message"]


def test_a_connection_kept_alive_may_not_drip_headers_either(hasty):
    with connect(hasty) as connection:
        connection.sendall(head(len(HELLO)) + HELLO)
        answer = b""
        while b"usage" not in answer:
            answer += connection.recv(65536)
        connection.sendall(b"POST /v1")
        status, _, _ = parsed(read_all(connection))
    assert status == 408


@pytest.mark.parametrize(
    "nonsense", [b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"\r\n" * 9 + b"x y\r\n\r\n"]
)
def test_what_is_not_http_is_400_in_the_one_shape(server, nonsense):
    with connect(server) as connection:
        connection.sendall(nonsense + b"\r\n\r\n")
        status, error, _ = parsed(read_all(connection))
    assert status == 400
    assert set(error) == {"message", "type", "param", "code"}


def test_a_broken_chunk_ends_the_connection_only(server):
    with connect(server) as connection:
        connection.sendall(head() + b"zz\r\n")
        read_all(connection)


def test_many_large_bodies_do_not_add_up(model_dir):
    config = settings(port=0, max_body_bytes=MIB)
    limits = Limits(buffered_bodies=2, body_timeout_s=5.0)
    with LiveServer(lambda: ScriptBackend(model_dir), config, limits) as server:
        held = [connect(server) for _ in range(3)]
        for connection in held:
            connection.sendall(head(MIB) + bytes(900_000))
        statuses = []

        def refused():
            for connection in held:
                connection.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    statuses.append(connection.recv(65536))
                connection.setblocking(True)
            return statuses

        time.sleep(0.3)
        for connection in held:
            _send(connection, bytes(MIB - 900_000))
        wait_for(lambda: any(b"body_memory" in one for one in refused()))
        for connection in held:
            connection.close()
        answer = httpx.post(
            f"{server.url}/v1/chat/completions",
            content=HELLO,
            headers={"content-type": "application/json"},
        )
        assert answer.status_code == 200


def test_two_requests_on_one_connection(server):
    with connect(server) as connection:
        request = head(len(HELLO)) + HELLO
        closing = head(len(HELLO), b"Connection: close") + HELLO
        connection.sendall(request + closing)
        assert read_all(connection).count(b"HTTP/1.1 200") == 2
