"""The web page: static files of the package, below a strict content security policy."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath

from rtp_core.errors import RequestError
from rtp_core.server.exchange import Answer, Call, Reply

INDEX = "index.html"
HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    "": "text/plain; charset=utf-8",
}


class Page:
    """Files by name, read once: what is served is fixed when the server starts."""

    def __init__(self, files_by_name: Mapping[str, bytes]) -> None:
        self._files = files_by_name

    @classmethod
    def packaged(cls) -> Page:
        """The files shipped in the package."""
        return cls(read_folder(files("rtp_core.server") / "page"))

    async def index(self, call: Call) -> Answer:
        """GET /."""
        return self._reply(INDEX)

    async def static(self, call: Call) -> Answer:
        """GET /static/{file}."""
        return self._reply(call.path_params["file"])

    def _reply(self, name: str) -> Reply:
        body = self._files.get(name)
        if body is None:
            raise RequestError(None, "there is no such page", status=404)
        media_type = MEDIA_TYPES[PurePosixPath(name).suffix]
        return Reply(body, media_type=media_type, headers=HEADERS)


def read_folder(folder: Traversable) -> dict[str, bytes]:
    """The folder's files of known types by name; empty if there is no folder."""
    if not folder.is_dir():
        return {}
    return {
        file.name: file.read_bytes()
        for file in folder.iterdir()
        if file.is_file() and PurePosixPath(file.name).suffix in MEDIA_TYPES
    }
