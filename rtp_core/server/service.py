"""The model being served: its state, names, prompts and books, shared by all handlers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator

from rtp_core.config.schema import EngineConfig
from rtp_core.engine.contract import AsyncBackend, ModelInfo
from rtp_core.errors import RequestError, RtpError
from rtp_core.observe.snapshot import EngineStats
from rtp_core.server.accounting import Books
from rtp_core.server.errors import ShutdownError, unavailable
from rtp_core.server.limits import Limits
from rtp_core.server.model_text import PromptRoom, load_room
from rtp_core.server.records import History
from rtp_core.server.traffic import Traffic

log = logging.getLogger("rtp.server")

SAMPLE_S = 1.0
POLL_S = 0.05


class Service:
    """Everything behind the routes. Belongs to one event loop.

    `open` loads what the front end needs of the model; until then, and again while the
    engine is away or the server drains, `check_ready` refuses with 503.
    """

    def __init__(self, config: EngineConfig, backend: AsyncBackend, limits: Limits) -> None:
        name = (config.model.served_name or (config.model.path,))[0]
        self.config = config
        self.backend = backend
        self.limits = limits
        server = config.server
        self.books = Books.of_model(name, server)
        self.history = History()
        self.started_s = time.monotonic()
        self.started_unix_s = int(time.time())
        self.traffic = Traffic(
            backend, self.books, server.max_queued_requests, server.request_timeout_s
        )
        self._unusable = False
        self._room: PromptRoom | None = None
        self._opening = asyncio.Lock()

    # ---- state

    @property
    def state(self) -> str:
        """``loading``, ``ready``, ``broken`` or ``draining``, of engine and front end."""
        if self.traffic.draining:
            return "draining"
        if self._unusable:
            return "broken"
        state = self.backend.state
        return "loading" if state == "ready" and self._room is None else state

    @property
    def names(self) -> tuple[str, ...]:
        """What clients may call the model."""
        return self.config.model.served_name or (self.books.meters.model_name,)

    @property
    def info(self) -> ModelInfo:
        """The model, once `check_ready` passed."""
        return self.room.info

    @property
    def room(self) -> PromptRoom:
        """Tokenizer and template, once `check_ready` passed."""
        if self._room is None:
            raise unavailable("model_loading", "the model is loading")
        return self._room

    @property
    def loaded(self) -> bool:
        """True once the model was ready; stays true afterwards."""
        return self._room is not None

    @contextlib.contextmanager
    def visit(self, tenant: str) -> Iterator[None]:
        """A tenant's request for the model. Raises as `check_ready` and `Quotas.visit`."""
        self.check_ready()
        with self.traffic.visit(), self.books.quotas.visit(tenant):
            yield

    def check_ready(self) -> None:
        """Raises a 503 that says what the server is doing instead."""
        match self.state:
            case "ready":
                return
            case "draining":
                raise ShutdownError
            case "broken":
                raise unavailable("engine_dead", "the engine has stopped")
            case _:
                raise unavailable("model_loading", "the model is loading")

    def check_model(self, wanted: str | None) -> str:
        """The name to answer with. Raises 404 for a model that is not served."""
        if wanted is None:
            return self.names[0]
        if wanted not in self.names:
            raise RequestError(
                "model",
                "this server has no such model",
                status=404,
                code="model_not_found",
                remedy="GET /v1/models lists the names",
            )
        return wanted

    async def open(self) -> None:
        """Load tokenizer and template of a backend that is ready; once."""
        async with self._opening:
            if self._room is None and self.backend.state == "ready":
                self._room = await asyncio.to_thread(
                    load_room,
                    self.backend.info,
                    self.config,
                    self.limits.text_threads,
                )

    # ---- background

    async def stats(self) -> EngineStats:
        """The engine's newest snapshot; zeros before it was ready."""
        if self._room is None:
            return EngineStats()
        return self._room.grammars.counted(await self.backend.stats())

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the backend while the server runs."""
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            if self._room is not None:
                self._room.close()
            if self.books.traces is not None:
                await asyncio.to_thread(self.books.traces.close)

    async def _watch(self) -> None:
        try:
            await self.open()
            while not self.loaded:
                await asyncio.sleep(POLL_S)
                await self.open()
        except RtpError:
            log.exception("model_files_unusable")
            self._unusable = True
            return
        while True:
            self.history.add(time.time(), await self.backend.stats(), self.books.latencies)
            await asyncio.sleep(SAMPLE_S)
