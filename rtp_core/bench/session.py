"""A server to measure, one that runs or one's own, and how it is asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rtp_core.bench.bodies import PATHS, Served, inspect
from rtp_core.bench.client import Record, Target, fetch, stream
from rtp_core.bench.own_server import own_server
from rtp_core.bench.report import Subject, device_words, num_threads
from rtp_core.bench.service_level import Goals
from rtp_core.bench.traffic import Route
from rtp_core.config.schema import EngineConfig
from rtp_core.errors import RtpError


@dataclass(frozen=True, slots=True)
class Where:
    """A running server at `url`, or one's own of `config`, with so many threads.

    `model`: which of a running server's models to ask; None is its first.
    """

    url: str | None
    config: EngineConfig
    threads: int | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Client:
    """How to ask: seconds a request may take, requests at once, warm-up requests, goals."""

    timeout_s: float | None
    max_concurrency: int | None
    warmup: int
    goals: Goals


@dataclass(frozen=True, slots=True)
class Session:
    """`show` takes a line for the user; `alive` says whether the server can still answer."""

    target: Target
    served: Served
    subject: Subject
    alive: Callable[[], bool]
    show: Callable[[str], None]

    def route(self, endpoint: str, client: Client) -> Route:
        """To one endpoint."""
        return Route(
            self.target, PATHS[endpoint], client.timeout_s, client.max_concurrency, self.alive
        )


@contextlib.contextmanager
def open_session(where: Where, show: Callable[[str], None]) -> Iterator[Session]:
    """Raises RtpError when there is no server, or it serves nothing."""
    if where.url is not None:
        keys = where.config.server.api_keys
        target = Target.of(where.url, keys[0] if keys else None)
        served = asyncio.run(inspect(target, where.model))
        yield Session(target, served, Subject(served.name, "remote"), lambda: True, show)
        return
    with own_server(where.config, where.threads) as server:
        served = asyncio.run(inspect(server.target))
        device = device_words(where.config.model.device, num_threads(where.threads))
        subject = Subject(served.name, device)
        yield Session(server.target, served, subject, server.alive, show)


async def warm_up(session: Session, route: Route, warm: Sequence[bytes]) -> None:
    """Requests that do not count, then an empty prefix cache where the server can forget."""
    for body in warm:
        record = Record(0.0, 1)
        await stream(route.target, route.path, body, record, route.timeout_s)
        if record.error is not None:
            raise RtpError(
                f"a first request failed: {record.error}",
                remedy="see the server's log; nothing was measured",
            )
    await fetch(session.target, "POST", "/reset_prefix_cache")


def client_params(client: Client) -> dict[str, Any]:
    """The client's part of a report's params."""
    goals_ms = {name: 1e3 * seconds for name, seconds in client.goals.items()}
    return {
        "max_concurrency": client.max_concurrency,
        "timeout_s": client.timeout_s,
        "warmup": client.warmup,
        "goodput_ms": goals_ms,
    }
