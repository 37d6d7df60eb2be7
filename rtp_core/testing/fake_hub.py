"""A hub of models on the loopback interface, with faults on demand.

Speaks what the hub's client library uses to read models: model information with the listing,
and `resolve` with ETag, X-Repo-Commit, X-Linked-Etag and X-Linked-Size, large files by
redirection to another path with ranges. Point HF_ENDPOINT at `Hub.url`.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

_LARGE = (".safetensors", ".gguf", ".bin")
_CHUNK = 2**16


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one request.

    `status` answers with it, under `code` (the hub's X-Error-Code) and `retry_after` seconds;
    `cut_after` closes the connection after so many bytes of a body; `corrupt` flips a bit of
    the body; `hang_s` waits before anything is sent; `whole` ignores the range asked for.
    """

    status: int | None = None
    code: str | None = None
    retry_after: int | None = None
    cut_after: int | None = None
    corrupt: bool = False
    hang_s: float = 0.0
    whole: bool = False


_NONE = Fault()


@dataclass
class Hub:
    """`repos` maps ``org/name`` to files by path; `token`, if set, is what requests must show.

    `bytes_served` counts body bytes by file path, `requests` counts requests by path;
    `leaked_tokens` counts requests that showed a token to the store of large files.
    """

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    url: str = ""
    token: str | None = None
    gated: bool = False
    bytes_served: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    faults: dict[str, deque[Fault]] = field(default_factory=dict)
    leaked_tokens: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def store_url(self) -> str:
        """Where large files lie: to a client another host, which must not see its token."""
        return self.url.replace("127.0.0.1", "localhost")

    def add(self, repo: str, files: Mapping[str, bytes]) -> str:
        """Publish a repository, or a new commit of it; returns the commit."""
        self.repos[repo] = dict(files)
        return self.commit(repo)

    def fail(self, path_part: str, *faults: Fault) -> None:
        """The next requests whose path contains this meet these faults, one each."""
        self.faults.setdefault(path_part, deque()).extend(faults)

    def commit(self, repo: str) -> str:
        """Forty hex digits that change with the content."""
        digest = hashlib.sha1(usedforsecurity=False)
        for path, data in sorted(self.repos[repo].items()):
            digest.update(path.encode() + b"\0" + data)
        return digest.hexdigest()

    def next_fault(self, path: str) -> Fault:
        """The fault for a request of `path`, taken from its queue."""
        for part, queue in self.faults.items():
            if part in path and queue:
                return queue.popleft()
        return _NONE


@contextmanager
def running_hub(hub: Hub | None = None, port: int = 0) -> Iterator[Hub]:
    """Serve until the block ends."""
    hub = hub or Hub()
    hub.stopping.clear()
    server = ThreadingHTTPServer(
        ("127.0.0.1", port), type("Handler", (_Handler,), {"hub": hub, "timeout": 30})
    )
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        """As GET without the body."""
        self._answer()

    def do_GET(self) -> None:
        """Information, a file, or a large file's bytes."""
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests[f"{self.command} {path}"] += 1
        fault = self.hub.next_fault(path)
        if fault.hang_s and self.hub.stopping.wait(fault.hang_s):
            return
        if fault.status is not None:
            self._refuse(fault.status, fault.code, fault.retry_after)
        elif path.startswith("/cdn/"):
            self.hub.leaked_tokens += "authorization" in self.headers
            self._large(path, fault)
        elif not self._admitted():
            self._refuse(403 if self.hub.gated else 401, "GatedRepo" if self.hub.gated else None)
        elif path.startswith("/api/models/"):
            self._information(path)
        else:
            self._resolve(path, fault)

    def _admitted(self) -> bool:
        given = self.headers.get("authorization")
        return self.hub.token is None or given == f"Bearer {self.hub.token}"

    def _information(self, path: str) -> None:
        repo, _, revision = path.removeprefix("/api/models/").partition("/revision/")
        if repo not in self.hub.repos:
            self._refuse(404, "RepoNotFound")
        elif not self._known(repo, revision or "main"):
            self._refuse(404, "RevisionNotFound")
        else:
            siblings = [_sibling(path, data) for path, data in self.hub.repos[repo].items()]
            body = {"id": repo, "sha": self.hub.commit(repo), "siblings": siblings}
            self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _resolve(self, path: str, fault: Fault) -> None:
        repo, _, rest = path.lstrip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        data = self.hub.repos.get(repo, {}).get(name)
        if data is None or not self._known(repo, revision):
            self._refuse(404, "EntryNotFound" if repo in self.hub.repos else "RepoNotFound")
            return
        headers = {"X-Repo-Commit": self.hub.commit(repo), "ETag": f'"{_git_id(data)}"'}
        if not _is_large(name):
            self._body(data, headers, fault, name)
            return
        sha256 = hashlib.sha256(data).hexdigest()
        headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(data))}
        self._send(302, b"", {**headers, "Location": f"{self.hub.store_url}/cdn/{repo}/{name}"})

    def _large(self, path: str, fault: Fault) -> None:
        owner, name, file = path.removeprefix("/cdn/").split("/", 2)
        self._body(self.hub.repos[f"{owner}/{name}"][file], {}, fault, file)

    def _body(self, data: bytes, headers: Mapping[str, str], fault: Fault, name: str) -> None:
        status, headers = 200, dict(headers)
        if fault.corrupt:
            data = bytes([data[0] ^ 1]) + data[1:]
        asked = self.headers.get("range")
        if asked is not None and not fault.whole:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last or len(data) - 1) + 1, len(data))
            if start >= len(data):
                self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
            status, data = 206, data[start:end]
        self._send(status, data, headers, fault.cut_after, name)

    def _known(self, repo: str, revision: str) -> bool:
        return revision in ("main", self.hub.commit(repo))

    def _refuse(self, status: int, code: str | None, retry_after: int | None = None) -> None:
        headers = {"X-Error-Message": f"fake hub says {code or status}"}
        if code is not None:
            headers["X-Error-Code"] = code
        if retry_after is not None:
            headers["Retry-After"] = str(retry_after)
        self._send(status, b"", headers)

    def _send(
        self,
        status: int,
        body: bytes,
        headers: Mapping[str, str],
        cut_after: int | None = None,
        counted: str | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        end = len(body) if cut_after is None else min(cut_after, len(body))
        for at in range(0, end, _CHUNK):
            sent = body[at : min(at + _CHUNK, end)]
            self.wfile.write(sent)
            if counted is not None:
                self.hub.bytes_served[counted] += len(sent)
        if end < len(body):
            self.close_connection = True


def _is_large(path: str) -> bool:
    return path.endswith(_LARGE)


def _git_id(data: bytes) -> str:
    """The id of a blob in git's own numbering."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _sibling(path: str, data: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"rfilename": path, "size": len(data), "blobId": _git_id(data)}
    if _is_large(path):
        sha256 = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 134}
    return entry
