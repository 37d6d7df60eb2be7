"""The process under attack and the ways to reach it: HTTP, raw bytes, and its vital signs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

HERE = Path(__file__).parent
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HELLO = {"messages": [{"role": "user", "content": "Hi"}]}
KEY = {"authorization": "Bearer first"}


@dataclass(frozen=True)
class Vitals:
    """`rss` in bytes; open `files`; `threads`; `cpu_s` seconds used so far."""

    rss: int
    files: int
    threads: int
    cpu_s: float


class Target:
    """serve_target.py; closed with it."""

    def __init__(self, model_dir: Path, log: Path) -> None:
        self.log = log
        path = os.pathsep.join(filter(None, sys.path))
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "serve_target.py"), str(model_dir)],
                stdout=subprocess.PIPE, stderr=errors, text=True,
                env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip
        line = self.process.stdout.readline()
        self.url = re.search(r"http://\S+", line)[0]
        self.port = int(self.url.rpartition(":")[2])
        self.client = httpx.Client(base_url=self.url, headers=KEY, timeout=30)
        self._seen_log = 0

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *error) -> None:
        self.client.close()
        self.process.kill()
        self.process.communicate()

    def post(self, path: str, body, **headers: str) -> httpx.Response:
        """`body` as JSON, or as it is if it is bytes."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.post(
            path, content=content, headers={"content-type": "application/json", **headers}
        )

    @contextlib.contextmanager
    def connection(self, timeout_s: float = 10.0):
        """A raw socket."""
        with socket.create_connection(("127.0.0.1", self.port), timeout_s) as connection:
            yield connection

    def raw(self, data: bytes, timeout_s: float = 10.0) -> bytes:
        """All that comes back for these bytes until the server closes or the time is over."""
        with self.connection(timeout_s) as connection:
            with contextlib.suppress(OSError):
                connection.sendall(data)
            return read_all(connection)

    def vitals(self) -> Vitals:
        """Now."""
        folder = Path(f"/proc/{self.process.pid}")
        status = dict(re.findall(r"^(\w+):\s+(\d+)", (folder / "status").read_text(), re.M))
        times = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
        return Vitals(
            int(status["VmRSS"]) * 1024,
            len(list((folder / "fd").iterdir())),
            int(status["Threads"]),
            sum(map(int, times)) / os.sysconf("SC_CLK_TCK"),
        )

    def stats(self) -> dict:
        """What the server says of itself."""
        return self.client.get("/v1/stats").raise_for_status().json()

    def new_log(self) -> str:
        """What it logged since the last call."""
        with self.log.open() as log:
            log.seek(self._seen_log)
            text = log.read()
            self._seen_log = log.tell()
        return text

    def check_unharmed(self) -> None:
        """It answers, nothing runs on, and no bug was logged."""
        assert self.process.poll() is None, "the server has ended"
        answer = self.post(CHAT, HELLO)
        assert answer.json()["choices"][0]["message"]["content"] == "Hello, world!"
        end = time.monotonic() + 3
        while self.stats()["engine"]["num_running"]:
            assert time.monotonic() < end, "a request runs on"
            time.sleep(0.02)
        assert "Traceback" not in self.new_log()


def read_all(connection: socket.socket) -> bytes:
    """Until the end, a reset, or the socket's timeout."""
    parts = []
    with contextlib.suppress(OSError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)
