"""Start `rtp serve` as users do and wait until it answers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

START_S = 90.0


@dataclass
class Server:
    """A running service: `url` without a slash, `process` the API process."""

    url: str
    process: subprocess.Popen
    log: Path

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=30)

    def post(self, path: str, body: dict, timeout: float = 60) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=timeout)

    def wait_healthy(self, seconds: float = START_S) -> float:
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended: {self.log.read_text()[-2000:]}")
            with contextlib.suppress(httpx.TransportError):
                if self.get("/health").status_code == 200:
                    return time.monotonic() - began
            time.sleep(0.05)
        raise AssertionError(f"not healthy after {seconds} s: {self.log.read_text()[-2000:]}")

    def engine_pids(self) -> list[int]:
        """Processes whose parent is the API process, whichever thread started them."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(pid) for children in tasks for pid in children.read_text().split()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(model: Path | str, log: Path, *flags: str, wait: bool = True) -> Iterator[Server]:
    """`rtp serve MODEL` on a free port; stopped by SIGTERM at the end."""
    port = free_port()
    command = [
        sys.executable, "-m", "rtp_core", "serve", str(model), "--port", str(port), *flags,
    ]  # fmt: skip
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=dict(os.environ)
        )
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        if wait:
            server.wait_healthy()
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
