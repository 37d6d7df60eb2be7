"""The engine as the outside sees it: synchronous core and asynchronous front."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from rtp_core.api import Request, TokenEvent
from rtp_core.observe.snapshot import EngineStats
from rtp_core.observe.timeline import Timeline


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a front end needs to serve the model; sent once when the engine is ready.

    `defaults` are sampling defaults from generation_config; `tokenizer_dir` holds
    tokenizer.json (and chat template files); `start` is where its start spent the time;
    `device` is what ``model.device`` came to. All plain data.
    """

    name: str
    architecture: str
    max_model_len: int
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    tokenizer_dir: str
    dtype: str
    defaults: dict[str, float]
    start: Timeline = field(default_factory=Timeline)
    device: str = "cpu"


Topic = Literal["cost", "blocks"]
"""What an engine reports on."""


class Engine(Protocol):
    """Single-threaded core. One owner calls everything; no method blocks beyond a step."""

    @property
    def info(self) -> ModelInfo:
        """The model served."""
        ...

    @property
    def has_work(self) -> bool:
        """True while `step` can make progress."""
        ...

    def submit(self, request: Request) -> None:
        """Queue a request; raises RequestError if it can never run."""
        ...

    def abort(self, request_id: str, choice: int | None = None) -> None:
        """End one choice, or all; last events come from the next step. Unknown ids: no-op."""
        ...

    def step(self) -> tuple[TokenEvent, ...]:
        """One step of the loop; at most one event a choice."""
        ...

    def stats(self) -> EngineStats:
        """Counters and gauges."""
        ...

    def explain(self) -> dict[str, Any]:
        """What `rtp explain --json` prints, for the running engine."""
        ...

    def report(self, topic: Topic) -> dict[str, Any]:
        """Numbers for routers: the measured ``cost`` of steps, the ``blocks`` of the cache."""
        ...

    def reset_prefix_cache(self) -> bool:
        """Forget idle cached blocks; False while blocks are in use."""
        ...

    def close(self) -> None:
        """Free memory; idempotent."""
        ...


class AsyncBackend(Protocol):
    """An engine behind a border (thread or process), as servers and AsyncLLM use it.

    Usable from any event loop. Nothing but `start` and `close` waits for the engine's thread.
    """

    @property
    def info(self) -> ModelInfo:
        """Valid once `state` was ``"ready"``; raises EngineDeadError before."""
        ...

    @property
    def state(self) -> str:
        """``"loading"``, ``"ready"``, ``"broken"`` or ``"draining"``."""
        ...

    @property
    def failure(self) -> str | None:
        """Why the engine is broken, with the remedy; None otherwise."""
        ...

    @property
    def progress(self) -> tuple[int, int] | None:
        """Bytes of weights placed and in all, while loading; None if not known."""
        ...

    async def start(self) -> None:
        """Load and wait until ``"ready"``. Raises the RtpError that prevents it."""
        ...

    def generate(self, request: Request) -> AsyncGenerator[TokenEvent, None]:
        """Submit at the first ``anext`` and follow all choices to their ends.

        Closing the generator, or cancelling its reader, aborts the request; its id is taken
        until the engine has ended it. While the reader is slow, events of a choice are merged.
        Raises RequestError (refused), EngineDeadError (not ready, or lost on the way) or
        CapacityError (the reader left too much output unread, so the request was ended).
        """
        ...

    async def abort(self, request_id: str, choice: int | None = None) -> None:
        """End a request, or one choice of it, early; the generator gets the last events."""
        ...

    async def stats(self) -> EngineStats:
        """Counters now, or the newest snapshot while the engine cannot answer. Never raises."""
        ...

    async def explain(self) -> dict[str, Any]:
        """As Engine.explain. Raises EngineDeadError while not ready."""
        ...

    async def report(self, topic: Topic) -> dict[str, Any]:
        """As Engine.report. Raises EngineDeadError while not ready."""
        ...

    async def reset_prefix_cache(self) -> bool:
        """As Engine.reset_prefix_cache. Raises EngineDeadError while not ready."""
        ...

    async def close(self) -> None:
        """Stop the engine; requests in flight end with EngineDeadError. Idempotent."""
        ...
