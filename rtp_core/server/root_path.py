"""Below a prefix: `server.root_path`, whether or not the proxy before us takes it off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtp_core.config.schema import ServerConfig
from rtp_core.errors import ConfigError

if TYPE_CHECKING:
    from starlette.middleware import Middleware
    from starlette.types import ASGIApp, Receive, Scope, Send

FIRST_SEGMENTS = frozenset(
    {
        "detokenize",
        "health",
        "metrics",
        "openapi.json",
        "ping",
        "reset_prefix_cache",
        "static",
        "tokenize",
        "v1",
        "version",
    }
)
"""What our own paths begin with. A prefix that does too could not be told from them."""


def check_root_path(config: ServerConfig) -> None:
    """Raises ConfigError for a prefix that begins as paths of the API do."""
    first = (config.root_path or "/").split("/")[1]
    if first in FIRST_SEGMENTS:
        raise ConfigError(
            "server.root_path",
            f"{config.root_path!r} begins as paths of the API do, so a path below it could mean "
            "two things",
            remedy=f"choose another prefix, as /llm/{first}",
        )


def below_root_path(config: ServerConfig) -> list[Middleware]:
    """Nothing unless a prefix is set."""
    # The check is made before the web framework is imported.
    from starlette.middleware import Middleware

    return [Middleware(Below, config.root_path)] if config.root_path else []


class Below:
    """ASGI: routes are found below the prefix and, where a proxy took it off, without it."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The prefix alone leads to the page, whose files are relative to ``PREFIX/``."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == self._root_path:
            location = f"{self._root_path}/".encode("ascii")
            headers = [(b"location", location), (b"content-length", b"0")]
            await send({"type": "http.response.start", "status": 307, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
        else:
            await self._app({**scope, "root_path": self._root_path}, receive, send)
