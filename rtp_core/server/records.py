"""What the page redraws from: recent requests, latencies, and one sample of the engine a second."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from rtp_core.observe.latency import LatencyWindow
from rtp_core.observe.snapshot import EngineStats

MAX_ROWS = 200
MAX_SAMPLES = 600
RATE_SAMPLES = 10
"""Hit and acceptance rates look back this many samples: one second holds too few events."""


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One finished request; seconds are None when the station was not reached."""

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


class RecentRequests:
    """The last MAX_ROWS requests."""

    def __init__(self) -> None:
        self._rows: deque[RequestRow] = deque(maxlen=MAX_ROWS)

    def add(self, row: RequestRow) -> None:
        """Enter a finished request."""
        self._rows.appendleft(row)

    def newest_first(self) -> list[dict[str, Any]]:
        """Rows as plain data."""
        return [asdict(row) for row in self._rows]


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


@dataclass(frozen=True, slots=True)
class _Sample:
    unix_s: float
    stats: EngineStats


class History:
    """Samples of the engine's counters and the rates between them."""

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque(maxlen=RATE_SAMPLES + 1)
        self._rows: deque[dict[str, float]] = deque(maxlen=MAX_SAMPLES)

    def add(self, unix_s: float, stats: EngineStats) -> None:
        """Enter a sample taken at `unix_s`."""
        self._samples.append(_Sample(unix_s, stats))
        self._rows.append(self._row())

    def rows(self) -> list[dict[str, float]]:
        """Oldest first."""
        return list(self._rows)

    def _row(self) -> dict[str, float]:
        oldest, newest = self._samples[0], self._samples[-1]
        before = self._samples[-2] if len(self._samples) > 1 else newest
        now, then = newest.stats, oldest.stats
        seconds = newest.unix_s - before.unix_s
        return {
            "t_unix_s": newest.unix_s,
            "running": now.num_running,
            "waiting": now.num_waiting,
            "kv_usage": now.kv_usage,
            "prompt_tokens_per_s": _ratio(now.prompt_tokens - before.stats.prompt_tokens, seconds),
            "generation_tokens_per_s": _ratio(
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


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0
