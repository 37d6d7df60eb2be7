"""The engine writes many texts at once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rtp_core.api import FinishReason, Request, SamplingParams, TokenEvent
from rtp_core.training.texts import Text


class Writer(Protocol):
    """What writing needs of `engine.core.EngineCore`."""

    def submit(self, request: Request) -> None:
        """Queue a request."""
        ...

    def step(self) -> Sequence[TokenEvent]:
        """Go on with what was submitted."""
        ...

    def abort(self, request_id: str) -> None:
        """End a request."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """A prompt to go on from. Equal jobs give equal texts, whoever is written beside them."""

    prompt: Sequence[int]
    source: str
    temperature: float
    seed: int
    max_tokens: int


@dataclass(slots=True)
class _Open:
    number: int
    job: Job
    token_ids: list[int] = field(default_factory=list)


def write_all(
    engine: Writer, jobs: Iterable[Job], at_once: int, until_s: float | None = None
) -> Iterator[tuple[int, Text | None]]:
    """(number of the job, its text) as they end; None for one that the engine gave up.

    `at_once` jobs are with the engine. After `until_s` of the monotonic clock what has not ended
    is dropped.
    """
    waiting = enumerate(jobs)
    unfinished: dict[str, _Open] = {}
    try:
        while True:
            late = until_s is not None and time.monotonic() >= until_s
            while not late and len(unfinished) < at_once:
                number, job = next(waiting, (-1, None))
                if job is None:
                    break
                name = f"write-{number}"
                engine.submit(_request(name, job))
                unfinished[name] = _Open(number, job)
            if late or not unfinished:
                return
            for event in engine.step():
                ended = _take(event, unfinished)
                if ended is not None:
                    yield ended
    finally:
        for name in unfinished:
            engine.abort(name)


def _take(event: TokenEvent, unfinished: dict[str, _Open]) -> tuple[int, Text | None] | None:
    """A job and its text where the event is its last one."""
    found = unfinished.get(event.request_id)
    if found is None:
        return None
    found.token_ids.extend(event.token_ids)
    if event.finish_reason is None:
        return None
    del unfinished[event.request_id]
    if event.finish_reason not in (FinishReason.STOP, FinishReason.LENGTH):
        return found.number, None
    job = found.job
    text = Text(
        [*job.prompt, *found.token_ids],
        len(job.prompt),
        job.source,
        job.temperature,
        job.seed,
        event.finish_reason is FinishReason.STOP,
    )
    return found.number, text


def _request(name: str, job: Job) -> Request:
    sampling = SamplingParams(temperature=job.temperature, seed=job.seed, max_tokens=job.max_tokens)
    return Request(name, tuple(job.prompt), sampling, arrival_time_s=time.monotonic())
