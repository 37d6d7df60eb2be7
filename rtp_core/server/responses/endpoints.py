"""POST /v1/responses, and what asks for responses that were never stored."""

from __future__ import annotations

from rtp_core.errors import RequestError
from rtp_core.server.body import parse
from rtp_core.server.exchange import Answer, Call
from rtp_core.server.plan import answer
from rtp_core.server.responses.plan import read_plan
from rtp_core.server.schema.responses import RESPONSES_REFUSED, ResponsesBody
from rtp_core.server.service import Service


async def responses(service: Service, call: Call) -> Answer:
    """Validate, then answer whole or as a stream."""
    body = parse(call.body, ResponsesBody, RESPONSES_REFUSED)
    return await answer(read_plan(body, service), call, service)


async def stored_response(service: Service, call: Call) -> Answer:
    """404: this server keeps nothing."""
    raise RequestError(
        None,
        "responses are not stored on this server",
        status=404,
        code="response_not_found",
        remedy="keep the answer of POST /v1/responses",
    )
