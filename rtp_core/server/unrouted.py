"""404 and 405 of the router in the one error shape."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from rtp_core.errors import RequestError
from rtp_core.server.errors import error_object
from rtp_core.server.exchange import Reply, request_id_of
from rtp_core.server.limits import Incoming, Limits

_REASONS = {404: "there is no such path", 405: "the path does not take this method"}


class Unrouted:
    """Answers for requests that reach no operation."""

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
