"""Requests on their way to a server at times that were set before: an open loop."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from rtp_core.bench.client import Record, Target, stream

REFUSALS = 5
"""Connections refused in a row after which nobody is there any more."""


@dataclass(frozen=True, slots=True)
class Send:
    """A request due `at_s` seconds after the start; `body` makes its bytes when it is sent."""

    at_s: float
    asked_tokens: int
    body: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Route:
    """Where requests go. `alive` is asked before each; None in flight bounds nothing."""

    target: Target
    path: str
    timeout_s: float | None
    max_concurrency: int | None
    alive: Callable[[], bool] = lambda: True


@dataclass(slots=True)
class Traffic:
    """What happened. `records` has every request that was due, sent or not."""

    records: list[Record] = field(default_factory=list)
    began_s: float = 0.0
    ended_s: float = 0.0
    client_cpu_s: float = 0.0
    interrupted: bool = False

    @property
    def seconds(self) -> float:
        """From the first moment a request could be due to the last answer's end."""
        return self.ended_s - self.began_s


def arrivals(rate: float, seed: int, burstiness: float = 1.0) -> Iterator[float]:
    """Arrival times in seconds, for ever; all 0 for an infinite rate.

    Gaps are gamma distributed of shape `burstiness`, as vLLM has it: 1 is a Poisson process,
    less comes in bursts, more is more even.
    """
    if math.isinf(rate):
        yield from itertools.repeat(0.0)
    draw, at = random.Random(seed), 0.0
    while True:
        if burstiness == 1.0:
            at += draw.expovariate(rate)
        else:
            at += draw.gammavariate(burstiness, 1 / (rate * burstiness))
        yield at


async def drive(route: Route, sends: Iterable[Send]) -> Traffic:
    """Send everything at its time and follow all answers to their ends.

    Being cancelled (Ctrl-C) cuts what is under way and returns what there is.
    """
    traffic = Traffic()
    places = asyncio.Semaphore(route.max_concurrency or 2**31)
    tasks: set[asyncio.Task[None]] = set()
    cpu = time.process_time()
    traffic.began_s = time.perf_counter()
    try:
        await _send_all(route, sends, traffic, places, tasks)
        await asyncio.gather(*tasks)
    except asyncio.CancelledError:
        traffic.interrupted = True
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
    traffic.client_cpu_s = time.process_time() - cpu
    traffic.ended_s = time.perf_counter()
    return traffic


async def _send_all(
    route: Route,
    sends: Iterable[Send],
    traffic: Traffic,
    places: asyncio.Semaphore,
    tasks: set[asyncio.Task[None]],
) -> None:
    for send in sends:
        due_s = traffic.began_s + send.at_s
        record = Record(due_s, send.asked_tokens)
        traffic.records.append(record)
        last = traffic.records[-1 - REFUSALS : -1]
        if not _gone(route, last):
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            await places.acquire()
            if not _gone(route, last):
                _start(route, send, record, places, tasks)
                await asyncio.sleep(0)
                continue
            places.release()
        record.error = "not sent, the server is gone"


def _start(
    route: Route,
    send: Send,
    record: Record,
    places: asyncio.Semaphore,
    tasks: set[asyncio.Task[None]],
) -> None:
    task = asyncio.create_task(_one(route, send, record, places))
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def _one(route: Route, send: Send, record: Record, places: asyncio.Semaphore) -> None:
    try:
        await stream(route.target, route.path, send.body(), record, route.timeout_s)
    finally:
        places.release()


def _gone(route: Route, last: list[Record]) -> bool:
    refused = len(last) == REFUSALS and all(
        one.error is not None and ("refused" in one.error or "gone" in one.error) for one in last
    )
    return refused or not route.alive()
