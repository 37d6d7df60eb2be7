"""An engine on a thread of the caller's process, behind the asynchronous contract."""

from __future__ import annotations

import asyncio
import queue
import threading
import weakref
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

from rtp_core.api import Request, TokenEvent
from rtp_core.engine.contract import Engine, ModelInfo, Topic
from rtp_core.engine.front import Front
from rtp_core.engine.loop import EngineLoop
from rtp_core.engine.wire import (
    Answer,
    Events,
    Failed,
    FromEngine,
    Refused,
    Shutdown,
    ToEngine,
)
from rtp_core.observe.snapshot import EngineStats

REMEDY = "create the engine again"


class ThreadBackend:
    """Implements `contract.AsyncBackend`; owns the engine and closes it.

    Usable from any event loop, from several at once. A backend that is dropped without
    `close` stops its thread after the running step.
    """

    def __init__(self, engine: Engine) -> None:
        self._info = engine.info
        self._inbox = QueueInbox()
        self._front = Front(self._inbox.post)
        self._closing = False
        self._front.open()
        self._thread = threading.Thread(
            target=_serve, args=(engine, self._inbox, self._front), name="rtp-engine", daemon=True
        )
        self._thread.start()
        weakref.finalize(self, self._inbox.post, Shutdown())

    @property
    def info(self) -> ModelInfo:
        """The model served."""
        return self._info

    @property
    def state(self) -> str:
        """``"ready"``, ``"broken"`` after an exception in a step, ``"draining"`` once closed."""
        if self._closing:
            return "draining"
        return "ready" if self._front.refusal is None else "broken"

    @property
    def failure(self) -> str | None:
        """Why the engine is broken, in words fit for clients."""
        return None if self._closing else self._front.refusal

    @property
    def progress(self) -> tuple[int, int] | None:
        """None: the weights were loaded before."""
        return None

    async def start(self) -> None:
        """Nothing to wait for."""

    def generate(self, request: Request) -> AsyncGenerator[TokenEvent, None]:
        """Submit and follow all choices to their ends; closing the generator aborts."""
        return self._front.generate(request)

    async def abort(self, request_id: str, choice: int | None = None) -> None:
        """End a request, or one choice of it, early."""
        self._front.abort(request_id, choice)

    async def stats(self) -> EngineStats:
        """Counters now, or the newest snapshot while a long step runs."""
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
        """End all requests with EngineDeadError, wait for the running step, free the engine."""
        self._closing = True
        self._front.close("the engine is closed", REMEDY)
        self._inbox.post(Shutdown())
        await asyncio.to_thread(self._thread.join)


class QueueInbox:
    """Messages from any thread to the engine's thread."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[ToEngine] = queue.SimpleQueue()

    def post(self, message: ToEngine) -> None:
        """Never blocks; also safe inside a finalizer."""
        self._queue.put(message)

    def take(self, timeout_s: float | None) -> list[ToEngine]:
        """As Inbox.take."""
        messages: list[ToEngine] = []
        with suppress(queue.Empty):
            messages.append(self._queue.get(timeout=timeout_s))
            while True:
                messages.append(self._queue.get_nowait())
        return messages


def _serve(engine: Engine, inbox: QueueInbox, front: Front) -> None:
    """The thread. Holds no reference to the backend, so that a dropped one can end it."""

    def publish(message: FromEngine) -> None:
        if isinstance(message, Events | Refused | Answer):
            front.receive(message)
        elif isinstance(message, Failed):
            front.close(message.reason, REMEDY)

    try:
        EngineLoop(engine, inbox, publish).run()
    finally:
        if front.refusal is None:
            front.close("the engine is closed", REMEDY)
