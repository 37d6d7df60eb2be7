"""The engine's work for one HTTP request: all prompts, all choices, as one series of pieces.

One task a prompt follows the backend and hands each piece to a sink as it comes. When the
client is slow the sink is full, the tasks wait, and the backend merges what comes meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import aclosing, suppress
from typing import Protocol

import msgspec

from rtp_core.api import FinishReason, Request, TokenEvent, TokenLogprob
from rtp_core.engine.contract import AsyncBackend
from rtp_core.errors import RequestError, RtpError
from rtp_core.server.accounting import Account
from rtp_core.server.errors import ClientGone, as_request_error, internal_error, unavailable
from rtp_core.text.answer_reader import Reading
from rtp_core.text.output import TextAssembler, TextDelta
from rtp_core.text.tokenizer import Tokenizer

log = logging.getLogger("rtp.server")

EARLY_PIECES = 64
"""Kept before there is a sink, until the backend has to merge."""


class Piece(msgspec.Struct, frozen=True):
    """New output of one choice; choices of prompt p are numbered from p * n."""

    choice: int
    delta: TextDelta
    prompt_logprobs: tuple[TokenLogprob, ...] = ()


class Sink(Protocol):
    """Where pieces go."""

    @property
    def full(self) -> bool:
        """True when `drain` is to be awaited before the next piece."""
        ...

    def take(self, piece: Piece) -> None:
        """The next piece of its choice."""
        ...

    async def drain(self) -> None:
        """Wait for room. Raises ClientGone when there will be none."""
        ...


class Generation:
    """Runs until every choice has ended, one failed, or `close`."""

    def __init__(
        self,
        backend: AsyncBackend,
        tokenizer: Tokenizer,
        requests: Sequence[Request],
        account: Account,
        reading: Reading | None = None,
    ) -> None:
        self.account = account
        self.requests = requests
        self._backend = backend
        self._tokenizer = tokenizer
        self._reading = reading
        self._early = _Early()
        self._sink: Sink = self._early
        self._failure: RequestError | ClientGone | None = None
        self._num_open = sum(request.sampling.n for request in requests)
        self._begun = asyncio.Event()
        self._over = asyncio.Event()
        self._expiry: asyncio.TimerHandle | None = None
        self._tasks = [
            asyncio.create_task(self._run(index, request)) for index, request in enumerate(requests)
        ]

    @property
    def num_open(self) -> int:
        """Choices that have not ended."""
        return self._num_open

    async def settle(self, grace_s: float) -> None:
        """Wait for the first piece, at most `grace_s`. Raises what the engine refuses by then."""
        await _event(self._begun, grace_s)
        if self._failure is not None:
            raise self._failure

    def send_to(self, sink: Sink) -> None:
        """From now on every piece goes there, those that came before first."""
        self._early.move_to(sink)
        self._sink = sink

    async def over(self, patience_s: float | None = None) -> bool:
        """Wait until every choice has ended, at most `patience_s`; False if one has not.

        Raises RequestError when the request failed, after the pieces before the failure.
        """
        await _event(self._over, patience_s)
        if self._failure is not None:
            raise self._failure
        return self._over.is_set()

    def fail(self, error: RequestError | ClientGone) -> None:
        """End every choice with `error`."""
        if self._failure is None and self._num_open:
            self._failure = error
            for task in self._tasks:
                task.cancel()
            self._begun.set()
            self._over.set()

    def expire_at(self, deadline_s: float) -> None:
        """Fail with 504 at that time of the monotonic clock, whatever has come by then."""
        loop = asyncio.get_running_loop()
        left_s = deadline_s - time.monotonic()
        self._expiry = loop.call_later(left_s, self.fail, _deadline_exceeded())

    async def close(self) -> None:
        """Abort what still runs and wait until the backend knows."""
        if self._expiry is not None:
            self._expiry.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, index: int, request: Request) -> None:
        try:
            await self._follow(index, request)
        except ClientGone as gone:
            self.fail(gone)
        except RtpError as error:
            self.fail(as_request_error(error))
        except Exception:
            log.exception("generation_failed id=%s", self.account.call.request_id)
            self.fail(internal_error())

    async def _follow(self, index: int, request: Request) -> None:
        first = index * request.sampling.n
        assemblers = {choice: self._assembler(request) for choice in range(request.sampling.n)}
        begun = False
        async with aclosing(self._backend.generate(request)) as events:
            async for event in events:
                if event.choice not in assemblers:
                    continue  # its text had ended before the engine knew
                delta = self._read(assemblers[event.choice], event, request)
                if not begun:
                    begun = True
                    self.account.started(request, event.num_cached_tokens)
                piece = Piece(first + event.choice, delta, event.prompt_logprobs)
                await self._hand_over(piece, event)
                if delta.finish_reason is None:
                    continue
                del assemblers[event.choice]
                if not assemblers:
                    return
                if event.finish_reason is None:
                    await self._backend.abort(request.request_id, event.choice)
        raise RequestError(None, "the engine ended the request early", status=500)

    def _assembler(self, request: Request) -> TextAssembler:
        prompt, reader = request.prompt_token_ids, None
        if self._reading is not None:
            reader = self._reading.reader(self._tokenizer, prompt)
        return TextAssembler(self._tokenizer, request.sampling, prompt, reader)

    def _read(self, assembler: TextAssembler, event: TokenEvent, request: Request) -> TextDelta:
        """The event's text; raises when the engine gave the choice up.

        The model's own end token is no `stop_reason`; a stop string or id of the client is.
        """
        if event.finish_reason is FinishReason.ERROR:
            raise RequestError(None, event.error or "the engine failed", status=500)
        if event.finish_reason is FinishReason.ABORT:
            raise unavailable("aborted", "the request was ended by the server")
        delta = assembler.feed(event)
        stop = delta.stop_reason
        if isinstance(stop, int) and stop not in request.sampling.stop_token_ids:
            return msgspec.structs.replace(delta, stop_reason=None)
        return delta

    async def _hand_over(self, piece: Piece, event: TokenEvent) -> None:
        delta = piece.delta
        self.account.tokens(piece.choice, len(delta.token_ids))
        self.account.reasoning_tokens += delta.num_reasoning
        if delta.finish_reason is not None:
            self.account.ended(piece.choice, delta.finish_reason, event.timing)
        sink = self._sink
        sink.take(piece)
        if not self._begun.is_set():
            self._begun.set()
        if delta.finish_reason is not None:
            self._num_open -= 1
            if self._num_open == 0:
                self._over.set()
                return
        if sink.full:
            await sink.drain()


class _Early:
    """The sink until there is one."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self._moved = asyncio.Event()

    @property
    def full(self) -> bool:
        return len(self._pieces) >= EARLY_PIECES

    def take(self, piece: Piece) -> None:
        self._pieces.append(piece)

    async def drain(self) -> None:
        await self._moved.wait()

    def move_to(self, sink: Sink) -> None:
        for piece in self._pieces:
            sink.take(piece)
        self._pieces.clear()
        self._moved.set()


async def _event(event: asyncio.Event, patience_s: float | None) -> None:
    """Wait for an event, at most `patience_s`."""
    with suppress(TimeoutError):
        async with asyncio.timeout(patience_s):
            await event.wait()


def _deadline_exceeded() -> RequestError:
    return RequestError(
        None,
        "the request took longer than the server allows",
        status=504,
        code="deadline_exceeded",
        remedy="ask for fewer tokens, or raise server.request_timeout_s",
    )
