"""The ASGI application: routes, errors in one shape, cross-origin rules, life cycle."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route

from rtp_core.config.schema import EngineConfig
from rtp_core.engine.contract import AsyncBackend
from rtp_core.server.auth import Guard
from rtp_core.server.cross_origin import cross_origin
from rtp_core.server.endpoint import Endpoint, Gate
from rtp_core.server.limits import BodyMemory, Limits
from rtp_core.server.root_path import below_root_path
from rtp_core.server.routes import operations
from rtp_core.server.service import Service
from rtp_core.server.unrouted import Unrouted


def build_app(
    config: EngineConfig, backend: AsyncBackend, limits: Limits | None = None
) -> Starlette:
    """An application around a backend; its lifespan follows the backend's state.

    Starting and closing the backend is the caller's part.
    """
    return app_of(Service(config, backend, limits or Limits()))


def app_of(service: Service) -> Starlette:
    """The application of a service."""
    config = service.config.server
    gate = Gate(
        guard=Guard(config.api_keys),
        limits=service.limits,
        max_body_bytes=config.max_body_bytes,
        memory=BodyMemory(config.max_body_bytes * service.limits.buffered_bodies),
        visit=service.visit,
        rejections=service.books.meters.rejections,
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = Starlette(
        routes=[
            Route(one.path, Endpoint(one, gate), methods=[one.method])
            for one in operations(service)
        ],
        middleware=[*cross_origin(config), *below_root_path(config)],
        exception_handlers={HTTPException: Unrouted(service.limits)},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app
