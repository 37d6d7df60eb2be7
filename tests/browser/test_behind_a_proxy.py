"""The page below a prefix, from the real server: the proxy takes the prefix off, or leaves it."""

from __future__ import annotations

import socket
import sys
import threading
from pathlib import Path

import pytest
from page_actions import ask, shown, wait_ready, wait_state

sys.path.insert(0, str(Path(__file__).parents[1] / "server"))
from kit import LiveServer, ScriptBackend, settings, write_model

pytestmark = pytest.mark.browser
PREFIX = "/teams/llm-1"


class StrippingProxy:
    """Forwards every request to a port with the prefix taken off its path; 502 without it."""

    def __init__(self, port):
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            head = b""
            while b"\r\n\r\n" not in head:
                data = client.recv(65536)
                if not data:
                    return
                head += data
            first, _, rest = head.partition(b"\r\n")
            method, path, version = first.split(b" ")
            if not path.startswith(f"{PREFIX}/".encode()):
                client.sendall(b"HTTP/1.1 502 Outside\r\nContent-Length: 0\r\n\r\n")
                return
            path = path.removeprefix(PREFIX.encode())
            headers = [one for one in rest.split(b"\r\n") if not one.lower().startswith(b"conn")]
            headers.insert(0, b"Connection: close")
            server.sendall(b" ".join([method, path, version]) + b"\r\n" + b"\r\n".join(headers))
            threading.Thread(target=pour, args=(client, server), daemon=True).start()
            pour(server, client)


def pour(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


@pytest.fixture(params=["stripped", "unstripped"])
def prefixed(request, tmp_path):
    folder = write_model(tmp_path)
    config = settings(port=0, root_path=PREFIX)
    with LiveServer(lambda: ScriptBackend(folder), config) as server:
        if request.param == "unstripped":
            yield f"{server.url}{PREFIX}"
            return
        proxy = StrippingProxy(server.port)
        yield f"{proxy.url}{PREFIX}"
        proxy.close()


def test_the_page_answers_below_the_prefix(prefixed, open_page):
    page = wait_ready(open_page(f"{prefixed}/"))
    ask(page, "Say hello.")
    assert shown(wait_state(page, "done")) == "Hello, world!"
    page.locator("#requests tbody tr").first.wait_for()
    asked = page.evaluate("performance.getEntriesByType('resource').map(one => one.name)")
    assert asked
    assert [one for one in asked if not one.startswith(f"{prefixed}/")] == []
