"""An operation of the API as an ASGI application: who may call it, when, and how it fails."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive, Scope, Send

from rtp_core.errors import RequestError, RtpError
from rtp_core.observe.log import line
from rtp_core.server.auth import Guard
from rtp_core.server.errors import (
    ClientGone,
    as_request_error,
    internal_error,
)
from rtp_core.server.exchange import (
    Call,
    EventStream,
    Outgoing,
    Reply,
    check_headers,
    open_call,
)
from rtp_core.server.limits import BodyLease, BodyMemory, Incoming, Limits
from rtp_core.server.operation import Operation

log = logging.getLogger("rtp.server")


@dataclass(frozen=True, slots=True)
class Gate:
    """What every operation of a server shares.

    `visit` admits a tenant's request for the model; `rejections` counts 503s by their code.
    """

    guard: Guard
    limits: Limits
    max_body_bytes: int
    memory: BodyMemory
    visit: Callable[[str], AbstractContextManager[None]]
    rejections: Counter[str]


class Endpoint:
    """Runs an operation; every outcome but a lost client is an answer in the one shape."""

    def __init__(self, operation: Operation, gate: Gate) -> None:
        self._operation = operation
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        lease = BodyLease(self._gate.memory)
        call = open_call(scope, lease)
        incoming = Incoming(receive, dict(call.headers))
        outgoing = Outgoing(send, scope, call.request_id, self._gate.limits.write_timeout_s)
        try:
            await self._serve(scope, call, incoming, outgoing)
        except ClientGone:
            log.debug("client_gone id=%s path=%s", call.request_id, call.path)
        except RtpError as error:
            await self._refuse(call, as_request_error(error), incoming, outgoing)
        except Exception:
            log.exception("request_failed id=%s path=%s", call.request_id, call.path)
            await self._refuse(call, internal_error(), incoming, outgoing)
        finally:
            lease.release()

    async def _serve(
        self, scope: Scope, call: Call, incoming: Incoming, outgoing: Outgoing
    ) -> None:
        operation, gate = self._operation, self._gate
        check_headers(scope, gate.limits.header_bytes)
        if not operation.public:
            call.tenant = gate.guard.tenant(call.headers)
        with gate.visit(call.tenant) if operation.needs_model else nullcontext():
            if operation.body is None:
                await self._answer(call, outgoing)
                return
            check_media_type(call)
            call.body = await incoming.read(
                gate.max_body_bytes, gate.limits.body_timeout_s, call.lease
            )
            await unless_gone(self._answer(call, outgoing), incoming)

    async def _answer(self, call: Call, outgoing: Outgoing) -> None:
        answer = await self._operation.handler(call)
        if isinstance(answer, Reply):
            await outgoing.reply(answer)
        else:
            await send_stream(answer, outgoing)

    async def _refuse(
        self, call: Call, error: RequestError, incoming: Incoming, outgoing: Outgoing
    ) -> None:
        if not (call.booked or self._operation.public):
            self._note(call, error)
        if outgoing.started:
            await outgoing.abort()
            return
        try:
            reply = self._operation.errors.reply(error)
            await send_refusal(reply, incoming, outgoing, self._gate.limits)
        except ClientGone:
            log.debug("client_gone id=%s path=%s", call.request_id, call.path)

    def _note(self, call: Call, error: RequestError) -> None:
        rejections = self._gate.rejections
        if error.code is not None and error.code in rejections and self._operation.needs_model:
            rejections[error.code] += 1
        fields = {"id": call.request_id, "endpoint": call.path, "status": error.status}
        log.info(line("request_refused", **fields, param=error.param, code=error.code))


async def send_refusal(
    reply: Reply, incoming: Incoming, outgoing: Outgoing, limits: Limits
) -> None:
    """Answer with an error once the client can be expected to read it."""
    patience = 0.0 if reply.status == 408 else limits.discard_timeout_s
    complete = await incoming.discard(limits.discard_bytes, patience)
    await outgoing.reply(reply, close=not complete)


async def send_stream(stream: EventStream, outgoing: Outgoing) -> None:
    """Send the whole stream; it is closed whatever happens."""
    try:
        await outgoing.stream(stream.tell)
    finally:
        await stream.close()


async def unless_gone(work: Coroutine[Any, Any, None], incoming: Incoming) -> None:
    """Run `work`, cancelled as soon as the client closes the connection (ClientGone)."""
    working = asyncio.create_task(work)
    watching = asyncio.create_task(incoming.gone())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        working.result()
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)
        # A task's exception holds this frame: the body would wait for the garbage collector.
        del working, watching


def check_media_type(call: Call) -> None:
    """Bodies are plain JSON. Raises 415."""
    media_type = call.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise RequestError(
            None,
            "the body must be JSON",
            status=415,
            remedy="send the header Content-Type: application/json",
        )
    if call.headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestError(None, "encoded bodies are not read", status=415)
