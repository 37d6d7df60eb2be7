"""Binding, loading, draining and ending."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from kit import LiveServer, ScriptBackend, settings, wait_for

from rtp_core.errors import ConfigError, ModelError
from rtp_core.server import listener as listening
from rtp_core.server import start as starting

HERE = Path(__file__).parent
CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "Hi"}]}


class Process:
    """serve_script.py, once it has said its address."""

    def __init__(self, model_dir, shutdown_timeout_s, *more):
        path = os.pathsep.join([str(HERE), *filter(None, sys.path)])
        self.process = subprocess.Popen(
            [
                sys.executable,
                str(HERE / "serve_script.py"),
                str(model_dir),
                str(shutdown_timeout_s),
                *more,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        self.first_line = self.process.stdout.readline()
        self.url = re.search(r"http://\S+", self.first_line)[0]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.communicate()

    def signal(self):
        self.process.send_signal(signal.SIGTERM)

    def wait(self):
        return self.process.wait(15)


def begin_stream(url):
    """A stream whose first delta has arrived, and a thread that reads the rest."""
    found = {}
    begun = threading.Event()

    def read():
        parts = []
        with httpx.stream("POST", url + CHAT, json={**HELLO, "stream": True}, timeout=30) as answer:
            for part in answer.iter_text():
                parts.append(part)
                if 'content":"a' in part:
                    begun.set()
        found["text"] = "".join(parts)

    thread = threading.Thread(target=read)
    thread.start()
    assert begun.wait(10)
    return thread, found


def test_the_first_signal_lets_requests_end_and_refuses_new_ones(model_dir):
    with Process(model_dir, 20) as server:
        assert "serving demo at http://127.0.0.1:" in server.first_line
        reader, found = begin_stream(server.url)
        server.signal()
        wait_for(lambda: httpx.get(f"{server.url}/health").status_code == 503)
        refused = httpx.post(server.url + CHAT, json=HELLO)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "server_draining"
        assert refused.headers["retry-after"]
        reader.join(15)
        assert '"finish_reason":"stop"' in found["text"]
        assert found["text"].endswith("data: [DONE]\n\n")
        assert server.wait() == 7


def test_requests_that_outlast_the_timeout_are_ended_with_an_error(model_dir):
    with Process(model_dir, 0.1) as server:
        reader, found = begin_stream(server.url)
        began = time.monotonic()
        server.signal()
        assert server.wait() == 7
        assert time.monotonic() - began < 8
        reader.join(5)
        assert "server_draining" in found["text"]
        assert found["text"].endswith("data: [DONE]\n\n")


def test_the_second_signal_ends_at_once(model_dir):
    with Process(model_dir, 60) as server:
        reader, found = begin_stream(server.url)
        began = time.monotonic()
        server.signal()
        wait_for(lambda: httpx.get(f"{server.url}/health").status_code == 503)
        server.signal()
        assert server.wait() == 7
        assert time.monotonic() - began < 8
        reader.join(5)
        assert "server_draining" in found["text"]


def test_an_idle_server_ends_on_the_first_signal(model_dir):
    with Process(model_dir, 60) as server:
        began = time.monotonic()
        server.signal()
        assert server.wait() == 7
        assert time.monotonic() - began < 8


def test_a_signal_ends_a_server_that_still_loads(model_dir):
    with Process(model_dir, 60, "loading") as server:
        wait_for(lambda: httpx.get(f"{server.url}/health").status_code == 503)
        began = time.monotonic()
        server.signal()
        assert server.wait() == 7
        assert time.monotonic() - began < 8


def test_the_port_answers_503_while_the_model_loads(model_dir):
    def loading():
        backend = ScriptBackend(model_dir)
        backend.state = "loading"
        backend.start_gate = asyncio.Event()
        return backend

    server = LiveServer(loading)
    server._thread.start()
    try:
        wait_for(lambda: server._health() == 503)
        answer = httpx.post(server.url + CHAT, json=HELLO)
        assert answer.json()["error"]["code"] == "model_loading"
        assert httpx.get(f"{server.url}/version").status_code == 200
        server.on_loop(server.backend.start_gate.set)
        wait_for(lambda: server._health() == 200)
        assert httpx.post(server.url + CHAT, json=HELLO).status_code == 200
    finally:
        server.__exit__()


def test_a_port_in_use_is_named(monkeypatch):
    monkeypatch.setattr(starting, "ProcessBackend", lambda config: pytest.fail("must not load"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"server.port: cannot listen .* port {port}.*--port"):
            starting.serve(settings(port=port))


def test_a_host_that_is_no_address_is_named():
    with pytest.raises(ConfigError, match=r"server\.host"):
        listening.bind(settings(host="no such host").server)


def test_what_keeps_the_model_from_loading_ends_the_server(model_dir, monkeypatch, capsys):
    backend = ScriptBackend(model_dir)
    backend.state = "loading"
    backend.start_error = ModelError("config.json is damaged", remedy="download it again")
    monkeypatch.setattr(starting, "ProcessBackend", lambda config: backend)
    with pytest.raises(ModelError, match=r"config\.json is damaged"):
        starting.serve(settings(port=0))
    assert backend.begun  # before the web framework is imported
    assert backend.state == "draining"
    assert "serving" not in capsys.readouterr().out


def test_a_public_server_without_keys_is_warned_about(caplog):
    caplog.set_level(logging.WARNING)
    for host, keys, warned in (
        ("127.0.0.1", (), False),
        ("localhost", (), False),
        ("::1", (), False),
        ("0.0.0.0", ("k",), False),
        ("0.0.0.0", (), True),
        ("example.org", (), True),
    ):
        caplog.clear()
        listening.warn_if_open(settings(host=host, api_keys=keys).server)
        assert bool(caplog.records) is warned, host


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:"),
        ("0.0.0.0", "http://127.0.0.1:"),
        ("::1", "http://[::1]:"),
    ],
)
def test_the_url_opens_in_a_browser(host, expected):
    try:
        listener = listening.bind(settings(host=host, port=0).server)
    except ConfigError:
        pytest.skip("no IPv6 on this machine")
    with listener:
        assert listening.url(listener).startswith(expected)
