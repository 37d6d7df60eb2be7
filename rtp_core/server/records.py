"""What the page redraws from: recent requests, latencies, and one sample of the engine a second."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice, pairwise, takewhile
from typing import Any, Literal, Protocol

from rtp_core.observe.latency import LatencyWindow
from rtp_core.observe.snapshot import EngineStats

MAX_ROWS = 200
MAX_SAMPLES = 600
RATE_SAMPLES = 10
"""Hit and acceptance rates look back this many samples: one second holds too few events."""


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One request; seconds are None when the station was not reached.

    While it runs, `state` says whether its first token is there, `status` is 0 and `e2e_s` grows.
    """

    id: str
    endpoint: str
    status: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    queue_s: float | None
    ttft_s: float | None
    e2e_s: float
    finish_reason: str | None
    started_unix_s: float
    state: Literal["waiting", "decode", "done"] = "done"


@dataclass(frozen=True, slots=True)
class Stations:
    """Seconds from arrival at which a request was first scheduled, gave its first token and its
    last; None where it did not get so far."""

    scheduled_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None

    def spans(self) -> Iterator[tuple[str, float, float]]:
        """(station, begin, end) of those that were left."""
        times = (0.0, self.scheduled_s, self.first_token_s, self.last_token_s)
        for name, (begin, end) in zip(("queue", "prefill", "decode"), pairwise(times), strict=True):
            if begin is not None and end is not None:
                yield name, begin, end


class Running(Protocol):
    """A request that has not ended; told apart by identity."""

    def row(self) -> RequestRow:
        """As it is now."""
        ...


class RecentRequests:
    """Those that run, and the last MAX_ROWS that ended."""

    def __init__(self) -> None:
        self._running: dict[int, Running] = {}
        self._rows: deque[RequestRow] = deque(maxlen=MAX_ROWS)

    def open(self, request: Running) -> None:
        """A request runs from now on."""
        self._running[id(request)] = request

    def close(self, request: Running, row: RequestRow) -> None:
        """It ended like this, or was refused before it ran."""
        self._running.pop(id(request), None)
        self._rows.appendleft(row)

    def newest_first(self, since_unix_s: float = 0.0) -> list[dict[str, Any]]:
        """Plain data: at most MAX_ROWS that run, then those that ended since a time."""
        running = islice(reversed(self._running.values()), MAX_ROWS)
        ended = takewhile(lambda row: row.started_unix_s + row.e2e_s >= since_unix_s, self._rows)
        return [asdict(row) for row in (*(one.row() for one in running), *ended)]


@dataclass(frozen=True, slots=True)
class Latencies:
    """Windows of what clients waited for, in seconds."""

    ttft: LatencyWindow = field(default_factory=LatencyWindow)
    itl: LatencyWindow = field(default_factory=LatencyWindow)
    e2e: LatencyWindow = field(default_factory=LatencyWindow)

    def summary(self) -> dict[str, Any]:
        """Percentiles under the names of /v1/stats."""
        return {
            "ttft_s": self.ttft.summary(),
            "itl_s": self.itl.summary(),
            "e2e_s": self.e2e.summary(),
        }

    def take_fresh(self) -> dict[str, Any]:
        """Percentiles of what came since the last call, for a row of the history."""
        return {"ttft_s": self.ttft.take_fresh(), "itl_s": self.itl.take_fresh()}


@dataclass(frozen=True, slots=True)
class _Sample:
    unix_s: float
    stats: EngineStats


class History:
    """Samples of the engine's counters and the rates between them."""

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque(maxlen=RATE_SAMPLES + 1)
        self._rows: deque[dict[str, Any]] = deque(maxlen=MAX_SAMPLES)

    def add(self, unix_s: float, stats: EngineStats, latencies: Latencies) -> None:
        """Enter a sample taken at `unix_s`."""
        self._samples.append(_Sample(unix_s, stats))
        self._rows.append({**self._row(), **latencies.take_fresh()})

    def rows(self, since_unix_s: float = 0.0) -> list[dict[str, Any]]:
        """Samples since a time, oldest first."""
        newer = takewhile(lambda row: row["t_unix_s"] >= since_unix_s, reversed(self._rows))
        return [*newer][::-1]

    def _row(self) -> dict[str, Any]:
        oldest, newest = self._samples[0], self._samples[-1]
        before = self._samples[-2] if len(self._samples) > 1 else newest
        now, then = newest.stats, oldest.stats
        seconds = newest.unix_s - before.unix_s
        return {
            "t_unix_s": newest.unix_s,
            "running": now.num_running,
            "waiting": now.num_waiting,
            "kv_usage": now.kv_usage,
            "blocks": now.blocks,
            "cached_blocks": now.cached_blocks,
            "prompt_tokens_per_s": _rate(now.prompt_tokens - before.stats.prompt_tokens, seconds),
            "generation_tokens_per_s": _rate(
                now.generation_tokens - before.stats.generation_tokens, seconds
            ),
            "prefix_hit_rate": _ratio(
                now.prefix_hits - then.prefix_hits, now.prefix_queries - then.prefix_queries
            ),
            "spec_acceptance": _ratio(
                now.spec_accepted_tokens - then.spec_accepted_tokens,
                now.spec_draft_tokens - then.spec_draft_tokens,
            ),
        }


def _rate(part: float, seconds: float) -> float:
    return part / seconds if seconds > 0 else 0.0


def _ratio(part: float, whole: float) -> float | None:
    """None where nothing was asked for: no cache has missed, no draft was wrong."""
    return part / whole if whole > 0 else None
