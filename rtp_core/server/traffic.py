"""Requests in flight: who may enter, what runs, and how all of it ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence

from rtp_core.api import Request
from rtp_core.engine.contract import AsyncBackend
from rtp_core.server.accounting import Account, Books
from rtp_core.server.admission import Admission
from rtp_core.server.errors import ShutdownError
from rtp_core.server.exchange import Call
from rtp_core.server.generation import Generation
from rtp_core.text.answer_reader import Reading
from rtp_core.text.tokenizer import Tokenizer


class Traffic:
    """Everything between the routes and the backend that has a beginning and an end."""

    def __init__(
        self, backend: AsyncBackend, books: Books, max_queued: int, timeout_s: float = 0.0
    ) -> None:
        self.paused = False
        self._closing = False
        self._timeout_s = timeout_s
        self._backend = backend
        self._books = books
        self._admission = Admission(max_queued)
        self._live: set[Generation] = set()
        self._num_visitors = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._aborted = False

    @property
    def draining(self) -> bool:
        """True while new requests are refused: for good, or until `paused` is taken back."""
        return self.paused or self._closing

    @property
    def num_visitors(self) -> int:
        """Requests for the model in flight."""
        return self._num_visitors

    @contextlib.contextmanager
    def visit(self) -> Iterator[None]:
        """A request that needs the model, from its headers to the end of its answer."""
        self._num_visitors += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._num_visitors -= 1
            if self._num_visitors == 0:
                self._idle.set()

    def account(self, call: Call, places: int) -> Account:
        """Admit a request with `places` choices. Raises 503 when the queue is full."""
        return Account(call, self._books, self._admission.enter(places))

    def generate(
        self,
        requests: Sequence[Request],
        account: Account,
        tokenizer: Tokenizer,
        reading: Reading | None = None,
    ) -> Generation:
        """Start the engine's work on all prompts of a request."""
        if self._aborted:
            raise ShutdownError
        account.begin(requests)
        generation = Generation(self._backend, tokenizer, requests, account, reading)
        if self._timeout_s:
            generation.expire_at(account.call.arrival_s + self._timeout_s)
        self._live.add(generation)
        return generation

    async def finish(self, generation: Generation) -> None:
        """End a generation, aborting what still runs."""
        try:
            await generation.close()
        finally:
            self._live.discard(generation)

    async def drain(self, timeout_s: float) -> None:
        """Refuse new requests; wait for those in flight, then end them with an error."""
        self._closing = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        self.abort_all()

    def abort_all(self) -> None:
        """End every request in flight now, and let no further one begin."""
        self._aborted = True
        for generation in self._live:
            generation.fail(ShutdownError())
