"""An engine in its own process, restarted when it dies, behind the asynchronous contract."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

from rtp_core.api import Request, TokenEvent
from rtp_core.config.schema import EngineConfig
from rtp_core.engine.contract import ModelInfo, Topic
from rtp_core.engine.supervisor import Patience, Supervisor
from rtp_core.errors import EngineDeadError
from rtp_core.observe.snapshot import EngineStats

BUILDER = "rtp_core.engine.assemble:build_engine"
DEFAULT_PATIENCE = Patience()
_ABANDON_PATIENCE_S = 2.0


class ProcessBackend:
    """Implements `contract.AsyncBackend`. `start` once, `close` always.

    `builder` is ``module:function``, called in the process as ``function(config, progress)``.
    States: loading -> ready -> loading (it died and is started again) or broken (it cannot be
    built, or died too often); draining once closed.
    """

    def __init__(
        self,
        config: EngineConfig,
        *,
        builder: str = BUILDER,
        patience: Patience = DEFAULT_PATIENCE,
    ) -> None:
        self._supervisor = Supervisor(config, builder, patience)
        self._front = self._supervisor.front
        self._closing = False
        weakref.finalize(self, _abandon, self._supervisor)

    @property
    def info(self) -> ModelInfo:
        """The model served. Raises EngineDeadError before the engine was ready once."""
        info = self._supervisor.status.info
        if info is None:
            raise EngineDeadError("the engine is loading", remedy="retry in a few seconds")
        return info

    @property
    def state(self) -> str:
        """``"loading"``, ``"ready"``, ``"broken"`` or ``"draining"``."""
        return "draining" if self._closing else self._supervisor.status.state

    @property
    def failure(self) -> str | None:
        """Why the engine is broken, with the remedy."""
        return self._supervisor.status.failure

    @property
    def progress(self) -> tuple[int, int] | None:
        """Bytes of weights placed, of bytes in all; None before the first."""
        return self._supervisor.status.progress

    @property
    def pid(self) -> int | None:
        """Id of the engine process, while there is one."""
        return self._supervisor.status.pid

    def begin(self) -> None:
        """Start the process and do not wait, as `start` will. Raises ConfigError."""
        self._supervisor.start()

    async def start(self) -> None:
        """Start the process and wait until it serves; a second call waits for the same.

        Raises the RtpError that keeps the engine from being built (ConfigError, ModelError,
        PluginError, …), or EngineDeadError when its process died too often or was closed.
        A caller that is cancelled stops waiting; only `close` stops the load.
        """
        if self._closing:
            raise EngineDeadError("the engine is closed", remedy="create it again")
        self._supervisor.start()
        await asyncio.wrap_future(self._supervisor.status.loaded)

    def generate(self, request: Request) -> AsyncGenerator[TokenEvent, None]:
        """Submit and follow all choices to their ends; closing the generator aborts.

        Raises EngineDeadError at once while the engine is not ready.
        """
        return self._front.generate(request)

    async def abort(self, request_id: str, choice: int | None = None) -> None:
        """End a request, or one choice of it, early."""
        self._front.abort(request_id, choice)

    async def stats(self) -> EngineStats:
        """Counters now, or the newest snapshot while a long step runs or no engine does."""
        return await self._front.stats()

    async def explain(self) -> dict[str, Any]:
        """As Engine.explain."""
        return await self._front.explain()

    async def report(self, topic: Topic) -> dict[str, Any]:
        """As Engine.report."""
        return await self._front.report(topic)

    async def reset_prefix_cache(self) -> bool:
        """As Engine.reset_prefix_cache."""
        return await self._front.reset_prefix_cache()

    async def close(self) -> None:
        """End all requests with EngineDeadError and stop the process; idempotent.

        A process that serves may finish its step within ``server.shutdown_timeout_s``, then it
        is killed; one that loads is killed at once.
        """
        self._closing = True
        self._front.close("the engine is shutting down", "retry when it is up again")
        self._supervisor.stop()
        if self._supervisor.started:
            await asyncio.wrap_future(self._supervisor.ended)


def _abandon(supervisor: Supervisor) -> None:
    """For a backend that was dropped, or not closed when the interpreter ends."""
    supervisor.stop()
    if supervisor.started:
        with suppress(TimeoutError):
            supervisor.ended.result(_ABANDON_PATIENCE_S)
