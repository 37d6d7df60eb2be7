"""Which other origins' pages may call the server from a browser."""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from rtp_core.config.schema import ServerConfig


def cross_origin(config: ServerConfig) -> list[Middleware]:
    """Off by default: browsers then keep other origins' pages out."""
    if not config.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=config.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("authorization", "content-type", "x-request-id"),
            expose_headers=("x-request-id", "retry-after"),
        )
    ]
