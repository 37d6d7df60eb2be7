"""`rtp bench load`: how fast weights become an engine, against how fast they can be read."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rtp_core.bench.bodies import body_of, inspect
from rtp_core.bench.client import Record, fetch, stream
from rtp_core.bench.own_server import OwnServer, own_server
from rtp_core.bench.prompts import Ask
from rtp_core.bench.read_speed import evict, read_speed, weight_files
from rtp_core.bench.report import Report, Subject, device_words, num_threads
from rtp_core.bench.summary import spread
from rtp_core.config.schema import EngineConfig
from rtp_core.errors import EngineDeadError

_START_S = 600.0


@dataclass(frozen=True, slots=True)
class Start:
    """One start: bytes of weights read, seconds for them, seconds to the first token.

    `phases` are the server's, as /v1/stats has them, and end when it takes requests.
    """

    num_bytes: int
    seconds: float
    ready_s: float
    phases: Sequence[Mapping[str, Any]]

    def seconds_of(self, *, beside: bool) -> dict[str, float]:
        """By phase, those that ran beside others or the rest, which together are `ready_s`."""
        chosen = {
            f"{one['name']}_s": one["seconds"]
            for one in self.phases
            if (one["beside_from_s"] is not None) == beside
        }
        if not beside:
            chosen["first-request_s"] = self.ready_s - sum(chosen.values())
        return chosen


def load(config: EngineConfig, repeats: int, *, cold: bool, threads: int | None) -> Report:
    """Start servers one after another; Ctrl-C ends it early.

    With `cold` the files are put out of the page cache before each start and each read.
    """
    files = weight_files(config.model.path)
    params = {"repeats": repeats, "cache": "evicted" if cold else "resident"}
    subject = Subject(config.model.path, device_words(config.model.device, num_threads(threads)))
    report = Report("load", subject, params)
    starts: list[Start] = []
    limits: list[float] = []
    try:
        for _ in range(repeats):
            limits.append(read_speed(files, cold=cold))
            if cold:
                evict(files)
            with own_server(config, threads) as server:
                starts.append(asyncio.run(first_token(server)))
    except KeyboardInterrupt:
        report.interrupted = True
    report.results = load_results(starts, limits)
    return report


def load_results(starts: Sequence[Start], limits: Sequence[float]) -> dict[str, Any]:
    """Speeds as samples of every start; the limit is the fastest plain read."""
    speeds = [one.num_bytes / one.seconds for one in starts]
    limit = max(limits, default=None)
    best = max(speeds, default=None)
    return {
        "bytes": starts[0].num_bytes if starts else None,
        "seconds": spread([one.seconds for one in starts]),
        "bytes_per_s": spread(speeds),
        "limit_bytes_per_s": limit,
        "fraction_of_limit": best / limit if best is not None and limit else None,
        "ready_s": spread([one.ready_s for one in starts]),
        "phases": _by_phase([one.seconds_of(beside=False) for one in starts]),
        "phases_beside": _by_phase([one.seconds_of(beside=True) for one in starts]),
    }


def _by_phase(starts: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    names = dict.fromkeys(name for one in starts for name in one)
    return {name: spread([one[name] for one in starts if name in one]) for name in names}


async def first_token(server: OwnServer) -> Start:
    """One token of a server that has just started, and what it says of its load."""
    served = await inspect(server.target)
    prompt = served.token_ids[:4] or "Hello"
    record = Record(0.0, 1)
    body = body_of(served, "completions", Ask(prompt, None, 1))
    await stream(server.target, "/v1/completions", body, record, _START_S)
    if record.error is not None:
        raise EngineDeadError(f"the first request failed: {record.error}")
    first_s = record.pieces_s[0] if record.pieces_s else record.end_s
    _, stats = await fetch(server.target, "GET", "/v1/stats")
    engine = stats["engine"]
    ready_s = first_s - server.started_s
    phases = stats["start"]["phases"]
    return Start(engine["load_bytes"], engine["load_seconds"], ready_s, phases)
