"""From a plan to an answer: the one way every generating endpoint takes.

An endpoint contributes a `Plan` (what is asked) and a `Renderer` (how it is told); admission,
tokenization, streaming, failure and accounting are the same for all.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Protocol

from rtp_core.api import FinishReason, Request, TokenLogprob
from rtp_core.errors import RequestError, RtpError
from rtp_core.server import sse
from rtp_core.server.accounting import Account
from rtp_core.server.errors import CLIENT_CLOSED, as_request_error
from rtp_core.server.exchange import Answer, Call, Channel, EventStream, Reply
from rtp_core.server.generation import Generation, Piece
from rtp_core.server.service import Service
from rtp_core.text.answer_reader import Reading


@dataclass(slots=True)
class Outcome:
    """Everything one choice produced."""

    choice: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    pieces: list[Piece] = field(default_factory=list)

    def add(self, piece: Piece) -> None:
        """Append a piece."""
        delta = piece.delta
        self.pieces.append(piece)
        self.text += delta.text
        self.token_ids.extend(delta.token_ids)
        self.logprobs.extend(delta.logprobs or ())
        self.prompt_logprobs.extend(piece.prompt_logprobs)
        if delta.finish_reason is not None:
            self.finish_reason = delta.finish_reason
            self.stop_reason = delta.stop_reason


class Renderer(Protocol):
    """Objects of one endpoint's vocabulary, for one request."""

    wire: ClassVar[sse.Wire]
    """How its streams are written."""

    def opening(self) -> list[dict[str, Any]]:
        """Events before the first token."""
        ...

    def frame(self, piece: Piece) -> bytes:
        """The events of a piece as they are written; empty if a client can see nothing of it."""
        ...

    def closing(self) -> list[dict[str, Any]]:
        """Events after the last choice ended."""
        ...

    def failed(self, error: RequestError) -> list[dict[str, Any]]:
        """Events when the request fails after the stream began."""
        ...

    def whole(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """The answer when it is not streamed."""
        ...


class Plan(Protocol):
    """A validated request. `places` is how many choices it will run."""

    @property
    def stream(self) -> bool:
        """True for server-sent events."""
        ...

    @property
    def places(self) -> int:
        """Choices of all prompts."""
        ...

    @property
    def reading(self) -> Reading | None:
        """How answers are read; None when all of an answer is content."""
        ...

    async def requests(self, call: Call, service: Service) -> list[Request]:
        """Tokenize; raises RequestError when a prompt does not fit."""
        ...

    def renderer(self, requests: Sequence[Request], service: Service, account: Account) -> Renderer:
        """Who tells the result."""
        ...


async def answer(plan: Plan, call: Call, service: Service) -> Answer:
    """Run a plan. Refusals come as exceptions before anything is sent."""
    account = service.traffic.account(call, plan.places)
    try:
        requests = await plan.requests(call, service)
    except BaseException as error:
        account.close(status_of(error), plan.places)
        raise
    call.drop_body()
    generation = service.traffic.generate(requests, account, service.room.tokenizer, plan.reading)
    run = Run(service, generation)
    renderer = plan.renderer(requests, service, account)
    try:
        if plan.stream:
            await run.generation.settle(service.limits.refusal_grace_s)
            return EventStream(partial(run.tell, renderer), run.close)
        outcomes = await run.outcomes()
    except BaseException as error:
        await run.close(status_of(error))
        raise
    await run.close(200)
    return Reply.json(renderer.whole(outcomes))


class Run:
    """A generation being answered, and the status it will be booked under."""

    def __init__(self, service: Service, generation: Generation) -> None:
        self.generation = generation
        self._service = service
        self._status = CLIENT_CLOSED

    async def outcomes(self) -> list[Outcome]:
        """Wait for all choices."""
        collector = _Collector(self.generation.num_open)
        self.generation.send_to(collector)
        await self.generation.over()
        return collector.outcomes

    async def tell(self, renderer: Renderer, channel: Channel) -> None:
        """Write the stream; a failure becomes its last event."""
        wire = renderer.wire
        keep_alive_s = self._service.config.server.keep_alive_s or None
        teller = _Teller(renderer, channel)
        try:
            await teller.say(wire.encode(renderer.opening()))
            self.generation.send_to(teller)
            while not await self.generation.over(teller.patience_s(keep_alive_s)):
                if teller.patience_s(keep_alive_s) == 0.0:
                    await teller.say(wire.keep_alive)
            last = wire.encode(renderer.closing())
            self._status = 200
        except RtpError as error:
            known = as_request_error(error)
            self._status = known.status
            last = wire.encode(renderer.failed(known))
        await teller.say(last + wire.end)

    async def close(self, status: int | None = None) -> None:
        """Abort what runs and make the entries; the first call counts."""
        try:
            await self._service.traffic.finish(self.generation)
        finally:
            self.generation.account.close(status or self._status, self.generation.num_open)


class _Collector:
    """A sink that keeps everything."""

    full = False

    def __init__(self, num_choices: int) -> None:
        self.outcomes = [Outcome(choice) for choice in range(num_choices)]

    def take(self, piece: Piece) -> None:
        self.outcomes[piece.choice].add(piece)

    async def drain(self) -> None:
        """There is always room."""


class _Teller:
    """A sink that writes each piece at once, and knows how long it has been silent."""

    def __init__(self, renderer: Renderer, channel: Channel) -> None:
        self._renderer = renderer
        self._channel = channel
        self._written_s = 0.0
        self.drain = channel.drain

    @property
    def full(self) -> bool:
        return self._channel.full

    def take(self, piece: Piece) -> None:
        self._write(self._renderer.frame(piece))

    async def say(self, data: bytes) -> None:
        """Write what is no piece."""
        self._write(data)
        if self.full:
            await self.drain()

    def _write(self, data: bytes) -> None:
        if data:
            self._written_s = time.monotonic()
            self._channel.write(data)

    def patience_s(self, keep_alive_s: float | None) -> float | None:
        """Seconds until a sign of life is due."""
        if keep_alive_s is None:
            return None
        return max(0.0, self._written_s + keep_alive_s - time.monotonic())


def status_of(error: BaseException) -> int:
    """The status a failed request is booked under."""
    if isinstance(error, RtpError):
        return as_request_error(error).status
    return 500 if isinstance(error, Exception) else CLIENT_CLOSED
