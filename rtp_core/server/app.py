"""The ASGI application: routes, errors in one shape, cross-origin rules, life cycle."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rtp_core.config.schema import EngineConfig, ServerConfig
from rtp_core.engine.contract import AsyncBackend
from rtp_core.errors import RequestError
from rtp_core.server.auth import Guard
from rtp_core.server.endpoint import Endpoint, Gate, Operation
from rtp_core.server.errors import error_object
from rtp_core.server.exchange import Call, Reply, request_id_of
from rtp_core.server.limits import BodyMemory, Incoming, Limits
from rtp_core.server.openapi import document
from rtp_core.server.page import Page
from rtp_core.server.routes import operations, page_operations
from rtp_core.server.service import Service

_REASONS = {404: "there is no such path", 405: "the path does not take this method"}


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
    )
    table = operations(service)
    table.append(_openapi(tuple(table)))
    if config.ui:
        table.extend(page_operations(Page.packaged()))

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = Starlette(
        routes=[Route(one.path, Endpoint(one, gate), methods=[one.method]) for one in table],
        middleware=_cross_origin(config),
        exception_handlers={HTTPException: _Unrouted(service.limits)},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


def _openapi(table: Sequence[Operation]) -> Operation:
    """Described when first asked for: schemas take longer than all the rest of the start."""

    @functools.cache
    def described() -> Reply:
        return Reply.json(document([*table, operation]))

    async def describe(call: Call) -> Reply:
        return described()

    operation = Operation("GET", "/openapi.json", "This document.", describe)
    return operation


def _cross_origin(config: ServerConfig) -> list[Middleware]:
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


class _Unrouted:
    """404 and 405 of the router in the one error shape."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    async def __call__(self, request: Request, error: Exception) -> Response:
        """Starlette's exception handler."""
        status = getattr(error, "status_code", 500)
        incoming = Incoming(request.receive, dict(request.headers))
        complete = await incoming.discard(
            self._limits.discard_bytes, self._limits.discard_timeout_s
        )
        headers = dict(getattr(error, "headers", None) or {})
        headers["x-request-id"] = request_id_of(request.headers)
        if not complete:
            headers["connection"] = "close"
        known = RequestError(None, _REASONS.get(status, "the request failed"), status=status)
        reply = Reply.json(error_object(known))
        return Response(reply.body, status, headers, reply.media_type)
