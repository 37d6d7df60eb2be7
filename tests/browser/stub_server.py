"""A scripted server for the page: real page files and policy, invented engine.

Tests decide byte by byte what a stream sends and when. By hand: ``python stub_server.py [PORT]``.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode does not add it
import engine_data

PAGE = files("rtp_core.server") / "page"
POLICY = "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'"
TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}
DONE = b"data: [DONE]\n\n"

Step = bytes | threading.Event | float


def event(data: dict[str, Any]) -> bytes:
    """One server-sent event, characters unescaped so that UTF-8 can be cut."""
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def chunk(delta: dict[str, Any], finish: str | None = None, so_far: int | None = None) -> bytes:
    """A chunk of a chat completion."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    used = None if so_far is None else usage(12, so_far, 8)
    return event({"id": "chatcmpl-1", "choices": [choice], "usage": used})


def text(content: str, so_far: int | None = None) -> bytes:
    """A chunk with text; `so_far` tokens, as `continuous_usage_stats` asks for."""
    return chunk({"content": content}, so_far=so_far)


def usage(prompt: int, completion: int, cached: int = 0) -> dict[str, Any]:
    """What a request used."""
    details = {"cached_tokens": cached}
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    return {**counts, "prompt_tokens_details": details}


ROLE = chunk({"role": "assistant", "content": ""})


def ending(tokens: int = 3, finish: str = "stop") -> list[Step]:
    """What follows the text of a complete reply."""
    return [chunk({}, finish), event({"choices": [], "usage": usage(12, tokens, 8)}), DONE]


@dataclass
class Reply:
    """What the next completion answers: bytes to send, events to wait for, seconds to sleep."""

    steps: list[Step]
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def saying(content: str) -> Reply:
    """A complete reply at once."""
    return Reply([ROLE, text(content), *ending()])


def refusing(status: int, message: str, **fields: Any) -> Reply:
    """An error in the one error shape."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    headers = {"Retry-After": "7"} if status in (429, 503) else {}
    return Reply([json.dumps({"error": {**error, **fields}}).encode()], status, headers)


class Stub:
    """The server's state; tests change it while the page runs."""

    def __init__(self, root: str = "", port: int = 0) -> None:
        self.root = root
        self.replies: deque[Reply] = deque()
        self.bodies: list[dict[str, Any]] = []
        self.api_key: str | None = None
        self.state = "ready"
        self.hung_up = threading.Event()
        self.running = 0
        self.plugins = engine_data.plugins()
        self.stats = engine_data.stats()
        self.stats_fail = False
        self.sinces: list[float] = []
        self.connections: set[socket.socket] = set()
        self._server = _Server(("127.0.0.1", port), partial(_Handler, self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}{self.root}/"

    def close(self) -> None:
        """Stop answering, on connections that are kept open too."""
        self._server.shutdown()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()
        self._thread.join()

    def snapshot(self, since: float = 0.0) -> dict[str, Any]:
        """The document of /v1/stats, or what of it is newer."""
        self.sinces.append(since)
        engine = {**self.stats["engine"], "num_running": self.running}
        history = [one for one in self.stats["history"] if one["t_unix_s"] >= since]
        requests = [
            one for one in self.stats["requests"] if one["started_unix_s"] + one["e2e_s"] >= since
        ]
        newer = {"history": history, "requests": requests}
        return {**self.stats, **newer, "state": self.state, "engine": engine}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    block_on_close = False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, stub: Stub, *args: Any) -> None:
        self.stub = stub
        super().__init__(*args)

    def setup(self) -> None:
        super().setup()
        self.stub.connections.add(self.connection)

    def handle(self) -> None:
        with suppress(ConnectionError):  # the browser may leave at any time
            super().handle()

    def finish(self) -> None:
        self.stub.connections.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        path = self.path.removeprefix(self.stub.root)
        if path == "/" or path.startswith("/static/"):
            self._send_file("index.html" if path == "/" else path.removeprefix("/static/"))
        elif path == "/health":
            self._send(200 if self.stub.state == "ready" else 503, b"", "text/plain")
        elif self._allowed():
            self._send_document(path)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._allowed():
            return
        self.stub.bodies.append(body)
        reply = self.stub.replies.popleft() if self.stub.replies else _usual(body)
        if reply.status != 200:
            self._send(reply.status, _joined(reply), "application/json", reply.headers)
        else:
            self._stream(reply)

    def _allowed(self) -> bool:
        key = self.stub.api_key
        if key is None or self.headers.get("Authorization") == f"Bearer {key}":
            return True
        reply = refusing(401, "A valid API key is needed.", code="invalid_api_key")
        self._send(401, _joined(reply), "application/json")
        return False

    def _send_document(self, address: str) -> None:
        path, _, query = address.partition("?")
        documents = {
            "/v1/models": engine_data.models,
            "/v1/plugins": lambda: self.stub.plugins,
            "/v1/stats": lambda: self.stub.snapshot(float(query.partition("since=")[2] or 0)),
        }
        if path == "/v1/stats" and self.stub.stats_fail:
            self._send(500, _joined(refusing(500, "No numbers.")), "application/json")
        elif path not in documents:
            self._send(404, _joined(refusing(404, "No such path.")), "application/json")
        else:
            self._send(200, json.dumps(documents[path]()).encode(), "application/json")

    def _send_file(self, name: str) -> None:
        content = (PAGE / name).read_bytes()
        self._send(200, content, TYPES[Path(name).suffix], {"Content-Security-Policy": POLICY})

    def _send(
        self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, reply: Reply) -> None:
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("X-Request-Id", f"request-{len(self.stub.bodies)}")
        self.send_header("Connection", "close")
        self.end_headers()
        self.stub.running += 1
        try:
            for step in reply.steps:
                self._do(step)
        except ConnectionError:
            self.stub.hung_up.set()
        finally:
            self.stub.running -= 1
            row = engine_data.finished(f"request-{len(self.stub.bodies)}")
            self.stub.stats["requests"] = [row, *self.stub.stats["requests"]]

    def _do(self, step: Step) -> None:
        if isinstance(step, bytes):
            self.wfile.write(step)
            return
        deadline = time.monotonic() + (step if isinstance(step, float) else 30)
        while time.monotonic() < deadline:
            if isinstance(step, threading.Event) and step.is_set():
                return
            # A closed peer reads as an end of file.
            readable, _, _ = select.select([self.connection], [], [], 0.01)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                raise ConnectionResetError


def _usual(body: dict[str, Any]) -> Reply:
    """A short greeting, or a long count for who asks for one."""
    if not body["messages"][-1]["content"].startswith("Count"):
        return saying("Hello there.")
    steps: list[Step] = [ROLE]
    for number in range(500):
        steps += [text(f"{number} ", number + 1), 0.02]
    return Reply([*steps, *ending(500)])


def _joined(reply: Reply) -> bytes:
    return b"".join(step for step in reply.steps if isinstance(step, bytes))


def _demo_replies() -> Iterator[Reply]:
    words = engine_data.DEMO_REPLY.split(" ")
    while True:
        steps: list[Step] = [0.4, ROLE]
        for place, word in enumerate(words):
            steps += [text(word + " ", place + 1), 0.02]
        yield Reply([*steps, *ending(len(words))])


def main() -> None:
    stub = Stub(port=int(sys.argv[1]) if len(sys.argv) > 1 else 8001)
    print(stub.url)
    for reply in _demo_replies():
        stub.stats = engine_data.stats()
        if not stub.replies:
            stub.replies.append(reply)
        time.sleep(1)


if __name__ == "__main__":
    main()
