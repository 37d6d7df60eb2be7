"""What one request used and how long it took: usage, metrics, the log line, the page's row."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rtp_core.api import FinishReason, Request, RequestTiming
from rtp_core.config.schema import ServerConfig
from rtp_core.observe.log import line
from rtp_core.observe.metrics import Meters
from rtp_core.server.admission import Ticket
from rtp_core.server.errors import CLIENT_CLOSED
from rtp_core.server.exchange import Call
from rtp_core.server.quotas import Quotas
from rtp_core.server.records import Latencies, RecentRequests, RequestRow, Stations
from rtp_core.server.tracing import Traces, open_traces

log = logging.getLogger("rtp.request")


@dataclass(frozen=True, slots=True)
class Books:
    """Where every request of a server is entered."""

    meters: Meters
    latencies: Latencies
    recent: RecentRequests
    quotas: Quotas
    traces: Traces | None = None

    @classmethod
    def of_model(cls, name: str, config: ServerConfig) -> Books:
        """Empty books for the model served under this name."""
        quotas = Quotas(config.max_requests_per_key, config.tokens_per_minute_per_key)
        traces = open_traces(config.otlp_traces_endpoint, name)
        return cls(Meters(name), Latencies(), RecentRequests(), quotas, traces)


@dataclass(slots=True)
class _Choice:
    """Times on the monotonic clock; 0.0 until the first token."""

    first_s: float = 0.0
    last_s: float = 0.0
    num_tokens: int = 0


@dataclass(slots=True)
class Account:
    """One HTTP request's entries. `close` makes the lasting ones, exactly once."""

    call: Call
    books: Books
    ticket: Ticket
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    finish_reason: str | None = None
    _first_token_s: float = 0.0
    _scheduled_s: float = 0.0
    _choices: dict[int, _Choice] = field(default_factory=dict)
    _closed: bool = False

    def begin(self, requests: Sequence[Request]) -> None:
        """Prompts are known; the engine is asked."""
        self.books.recent.open(self)
        for request in requests:
            sampling = request.sampling
            self.books.meters.observe("request_params_n", sampling.n)
            if sampling.max_tokens is not None:
                self.books.meters.observe("request_params_max_tokens", sampling.max_tokens)

    def started(self, request: Request, num_cached: int) -> None:
        """The engine's first event for this prompt: from now on it counts as used."""
        meters, num_prompt = self.books.meters, len(request.prompt_token_ids)
        self.ticket.give_back(request.sampling.n)
        self.prompt_tokens += num_prompt
        self.cached_tokens += num_cached
        meters.prompt_tokens += num_prompt
        meters.cached_tokens += num_cached
        meters.observe("request_prompt_tokens", num_prompt)

    def tokens(self, choice: int, count: int) -> None:
        """`count` tokens of a choice arrived together."""
        if count == 0:
            return
        now = time.monotonic()
        entry = self._choices.setdefault(choice, _Choice())
        self._observe_gap(entry, now)
        entry.last_s = now
        entry.num_tokens += count
        self.completion_tokens += count
        self.books.meters.generation_tokens += count

    def ended(self, choice: int, reason: FinishReason, timing: RequestTiming | None) -> None:
        """A choice reached its end."""
        meters, now = self.books.meters, time.monotonic()
        self.finish_reason = self.finish_reason or reason.value
        meters.finished[reason.value] += 1
        meters.observe("e2e_request_latency_seconds", now - self.call.arrival_s)
        entry = self._choices.get(choice, _Choice())
        meters.observe("request_generation_tokens", entry.num_tokens)
        if entry.num_tokens > 1:
            mean_gap = (entry.last_s - entry.first_s) / (entry.num_tokens - 1)
            meters.observe("request_time_per_output_token_seconds", mean_gap)
        if timing is not None and timing.scheduled_s:
            self._observe_stations(timing)

    def usage(self) -> dict[str, Any]:
        """OpenAI's object; a prompt counts once however many choices it has."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
        }

    def close(self, status: int, num_open: int) -> None:
        """The request ended with `status`; `num_open` choices had not reached their ends.

        What was refused (400 to 498) never ran, so that nothing of it has finished.
        """
        if self._closed:
            return
        self._closed = self.call.booked = True
        self.ticket.give_back()
        self.books.quotas.charge(self.call.tenant, self.prompt_tokens + self.completion_tokens)
        if num_open and status >= CLIENT_CLOSED:
            reason = FinishReason.ERROR if status == 500 else FinishReason.ABORT
            self.finish_reason = reason.value
            self.books.meters.finished[reason.value] += num_open
        row = replace(self.row(), status=status, state="done")
        if status == 200:
            self.books.latencies.e2e.add(row.e2e_s)
        self.books.recent.close(self, row)
        if self.books.traces is not None:
            self.books.traces.record(row, self._stations(), self.call.headers)
        log.info(_log_line(row))

    def _observe_gap(self, entry: _Choice, now: float) -> None:
        books = self.books
        if entry.last_s:
            books.meters.observe("inter_token_latency_seconds", now - entry.last_s)
            books.latencies.itl.add(now - entry.last_s)
            return
        entry.first_s = now
        if not self._first_token_s:
            self._first_token_s = now
            books.meters.observe("time_to_first_token_seconds", now - self.call.arrival_s)
            books.latencies.ttft.add(now - self.call.arrival_s)

    def _observe_stations(self, timing: RequestTiming) -> None:
        meters, first = self.books.meters, timing.first_token_s or timing.finished_s
        if not self._scheduled_s or timing.scheduled_s < self._scheduled_s:
            self._scheduled_s = timing.scheduled_s
        meters.observe("request_queue_time_seconds", timing.scheduled_s - timing.arrival_s)
        meters.observe("request_prefill_time_seconds", first - timing.scheduled_s)
        meters.observe("request_decode_time_seconds", timing.finished_s - first)
        meters.observe("request_inference_time_seconds", timing.finished_s - timing.scheduled_s)

    def _stations(self) -> Stations:
        last = max((choice.last_s for choice in self._choices.values()), default=0.0)
        times = (self._scheduled_s, self._first_token_s, last)
        return Stations(*(max(0.0, at - self.call.arrival_s) if at else None for at in times))

    def row(self) -> RequestRow:
        """As it is now, running."""
        now, arrival = time.monotonic(), self.call.arrival_s
        return RequestRow(
            id=self.call.request_id,
            endpoint=self.call.path,
            status=0,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            completion_tokens=self.completion_tokens,
            queue_s=max(0.0, self._scheduled_s - arrival) if self._scheduled_s else None,
            ttft_s=self._first_token_s - arrival if self._first_token_s else None,
            e2e_s=now - arrival,
            finish_reason=self.finish_reason,
            started_unix_s=time.time() - (now - arrival),
            state="decode" if self._first_token_s else "waiting",
        )


def _log_line(row: RequestRow) -> str:
    return line(
        "request_finished",
        id=row.id,
        endpoint=row.endpoint,
        status=row.status,
        prompt_tokens=row.prompt_tokens,
        cached_tokens=row.cached_tokens,
        completion_tokens=row.completion_tokens,
        queue_ms=_milliseconds(row.queue_s),
        ttft_ms=_milliseconds(row.ttft_s),
        e2e_ms=_milliseconds(row.e2e_s),
        finish=row.finish_reason,
    )


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000.0
