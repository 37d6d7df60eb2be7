"""A web server with ranges on the loopback interface, slow and faulty on demand."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from rtp_core.testing.slow_storage import SlowLink

_CHUNK = 2**18


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one GET.

    `status` answers with it and no body; `cut_after` closes after so many bytes of a body;
    `claim_more` adds to the Content-Length that the body has; `etag` answers with another one;
    `hang_s` waits before anything is sent; `whole` ignores the range; `shifted` sends other
    bytes than asked for, and says so in Content-Range.
    """

    status: int | None = None
    cut_after: int | None = None
    claim_more: int = 0
    etag: str | None = None
    hang_s: float = 0.0
    whole: bool = False
    shifted: int = 0


_NONE = Fault()


@dataclass
class RangeServer:
    """`files` by path below `url`; `link` makes answers wait; `faults` are met one each."""

    files: dict[str, bytes]
    link: SlowLink | None = None
    url: str = ""
    requests: Counter[str] = field(default_factory=Counter)
    bytes_served: Counter[str] = field(default_factory=Counter)
    faults: dict[str, deque[Fault]] = field(default_factory=dict)
    stopping: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, path: str, *faults: Fault) -> None:
        """The next GETs of this path meet these faults."""
        self.faults.setdefault(path, deque()).extend(faults)

    def take_fault(self, path: str) -> Fault:
        """The next one, if any is left."""
        with self.lock:
            waiting = self.faults.get(path)
            return waiting.popleft() if waiting else _NONE

    def etag(self, path: str) -> str:
        """Changes with the content."""
        return f'"{len(self.files[path])}-{hash(self.files[path]) & 0xFFFFFFFF:x}"'


@contextmanager
def range_server(files: Mapping[str, bytes], link: SlowLink | None = None) -> Iterator[RangeServer]:
    """Serves until the `with` ends."""
    state = RangeServer(dict(files), link)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield state
    finally:
        state.stopping.set()
        server.shutdown()
        server.server_close()


def _handler(state: RangeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        server_state = state

    return Handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server_state: RangeServer

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""

    def do_HEAD(self) -> None:
        """Size and ETag."""
        path = self._path()
        if path not in self.server_state.files:
            self._refuse(404)
            return
        self._wait(0)
        self._head(200, len(self.server_state.files[path]), self.server_state.etag(path))

    def do_GET(self) -> None:
        """A range, or what a fault makes of it."""
        state, path = self.server_state, self._path()
        fault = state.take_fault(path)
        state.requests[path] += 1
        if fault.hang_s:
            state.stopping.wait(fault.hang_s)
        if fault.status is not None or path not in state.files:
            self._refuse(fault.status or 404)
            return
        wanted = self.headers.get("If-Match")
        if wanted is not None and wanted != state.etag(path) and fault.etag is None:
            self._refuse(412)
            return
        self._send(state.files[path], fault, fault.etag or state.etag(path))

    def _send(self, data: bytes, fault: Fault, etag: str) -> None:
        spoken = self.headers.get("Range")
        if spoken is None or fault.whole:
            self._head(200, len(data), etag)
            self._body(data, fault)
            return
        first, _, last = spoken.removeprefix("bytes=").partition("-")
        begin = int(first) + fault.shifted
        end = min(int(last) + 1, len(data))
        if begin >= len(data):
            self._refuse(416)
            return
        body = data[begin:end]
        span = f"bytes {begin}-{end - 1}/{len(data)}"
        self._wait(len(body))
        self._head(206, len(body) + fault.claim_more, etag, span)
        self._body(body, fault)

    def _body(self, body: bytes, fault: Fault) -> None:
        cut = fault.cut_after
        sent = body if cut is None else body[:cut]
        view = memoryview(sent)
        try:
            for at in range(0, len(view), _CHUNK):
                self.wfile.write(view[at : at + _CHUNK])
            self.wfile.flush()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        self.server_state.bytes_served[self._path()] += len(sent)
        if cut is not None or fault.claim_more:
            self.close_connection = True

    def _head(self, status: int, length: int, etag: str, span: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("ETag", etag)
        if span is not None:
            self.send_header("Content-Range", span)
        self.end_headers()

    def _refuse(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _wait(self, num_bytes: int) -> None:
        if self.server_state.link is not None:
            self.server_state.link.wait(num_bytes)

    def _path(self) -> str:
        return unquote(urlsplit(self.path).path).lstrip("/")
