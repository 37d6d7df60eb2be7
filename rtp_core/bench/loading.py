"""`rtp bench load`: how fast weights become an engine, against how fast they can be read."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtp_core.bench.bodies import body_of, inspect
from rtp_core.bench.client import Record, fetch, stream
from rtp_core.bench.own_server import OwnServer, num_threads, own_server
from rtp_core.bench.prompts import Ask
from rtp_core.bench.report import Report, Subject, cpu_device
from rtp_core.bench.summary import spread
from rtp_core.config.environment import cache_dir
from rtp_core.config.schema import EngineConfig
from rtp_core.engine.cores import usable_cores
from rtp_core.errors import EngineDeadError
from rtp_core.loading.checkpoint import open_checkpoint
from rtp_core.loading.demo import resolve_model

_READ_BYTES = 4 * 2**20
_START_S = 600.0


@dataclass(frozen=True, slots=True)
class Start:
    """One start: bytes of weights read, seconds for them, seconds to the first token."""

    num_bytes: int
    seconds: float
    ready_s: float


def load(config: EngineConfig, repeats: int, *, cold: bool, threads: int | None) -> Report:
    """Start servers one after another; Ctrl-C ends it early.

    With `cold` the files are put out of the page cache before each start and each read.
    """
    files = weight_files(resolve_model(config.model.path, cache_dir()))
    params = {"repeats": repeats, "cache": "evicted" if cold else "resident"}
    subject = Subject(config.model.path, cpu_device(num_threads(threads)))
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
    }


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
    return Start(engine["load_bytes"], engine["load_seconds"], first_s - server.started_s)


def weight_files(model: Path) -> list[Path]:
    """The files that hold tensors."""
    checkpoint = open_checkpoint(model)
    return sorted({Path(one.file) for one in checkpoint.tensors.values()})


def read_speed(files: Sequence[Path], *, cold: bool) -> float:
    """Bytes a second of plain reads, the best of passes with one thread and with all cores."""
    pieces = [
        (file, offset) for file in files for offset in range(0, file.stat().st_size, _READ_BYTES)
    ]
    total = sum(file.stat().st_size for file in files)
    return max(total / _read_all(files, pieces, num, cold=cold) for num in (1, 1, usable_cores()))


def evict(files: Sequence[Path]) -> None:
    """Put files out of the page cache, as far as nobody else has them mapped."""
    for file in files:
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read_all(
    files: Sequence[Path], pieces: Sequence[tuple[Path, int]], threads: int, *, cold: bool
) -> float:
    """Seconds of one pass."""
    if cold:
        evict(files)
    shares = [pieces[first::threads] for first in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        at = time.perf_counter()
        list(pool.map(_read, shares))
        return time.perf_counter() - at


def _read(pieces: Sequence[tuple[Path, int]]) -> None:
    """Into one buffer: fresh memory for every piece would cost more than the read."""
    buffer = bytearray(_READ_BYTES)
    for file, offset in pieces:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.preadv(descriptor, [buffer], offset)
        finally:
            os.close(descriptor)
