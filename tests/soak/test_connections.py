"""A thousand connections that do nothing cost little: kept alive, or streams that wait."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "server"))
from books import resident_mb
from kit import write_model

HERE = Path(__file__).parent
COUNT = 1000
LIMIT_MB = 100.0
BODY = json.dumps(
    {"messages": [{"role": "user", "content": "Hi " * 50}], "stream": True, "max_tokens": 5}
).encode()
ASK = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def server(tmp_path):
    """Port and process id of a server whose engine waits until the file ``go`` is there.

    The shell that starts it allows fewer files than it is to have connections.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 2 * COUNT:
        pytest.skip(f"{hard} open files are allowed at most")
    write_model(tmp_path)
    path = os.pathsep.join([str(HERE), str(HERE.parent / "server"), *filter(None, sys.path)])
    process = subprocess.Popen(
        [
            "sh",
            "-c",
            'ulimit -Sn 256; exec "$@"',
            "sh",
            sys.executable,
            str(HERE / "waiting_server.py"),
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        yield port, process.pid
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def many_files():
    """Both ends of each connection may be ours."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def opened(port, message):
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(message)
    return connection


def cost_mb(port, pid, message, answer):
    """What `COUNT` connections add, each after `message` was answered by `answer`."""
    warm = [opened(port, message) for _ in range(20)]
    for connection in warm:
        assert answer in received(connection, answer)
    before = resident_mb(pid)
    connections = [opened(port, message) for _ in range(COUNT)]
    for connection in connections:
        assert answer in received(connection, answer)
    return resident_mb(pid) - before, [*warm, *connections]


def received(connection, end):
    data = b""
    while end not in data and (part := connection.recv(65536)):
        data += part
    return data


def test_kept_alive(server, many_files):
    port, pid = server
    cost, connections = cost_mb(port, pid, HEALTH, b"\r\n\r\n")
    assert cost < LIMIT_MB, f"{cost:.0f} MB for {COUNT} idle connections"
    began = time.monotonic()
    assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    assert time.monotonic() - began < 5
    for connection in connections:
        connection.close()


def test_streams_that_wait(server, many_files, tmp_path):
    """Their headers and first event are out, and no token has come."""
    port, pid = server
    cost, connections = cost_mb(port, pid, ASK, b'"role":"assistant"')
    assert cost < LIMIT_MB, f"{cost:.0f} MB for {COUNT} waiting streams"
    assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    (tmp_path / "go").touch()
    for connection in connections:
        assert b"[DONE]" in received(connection, b"data: [DONE]\n\n")
        connection.close()
