"""From what happened to requests to the figures of `rtp bench serve`.

Definitions are vLLM's: TTFT ends with the first piece of content; ITL are the gaps between
pieces; TPOT is what follows the first token divided by the tokens after it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rtp_core.bench.client import Record
from rtp_core.bench.summary import percentiles
from rtp_core.bench.traffic import Traffic
from rtp_core.errors import ConfigError

Goals = Mapping[str, float]
"""Metric to the most seconds a good request may take."""
METRICS = ("ttft", "tpot", "e2e")
_ALIASES = {"e2el": "e2e"}
"""vLLM's name of it."""


def parse_goals(words: Sequence[str]) -> dict[str, float]:
    """``ttft:200 tpot:50`` (milliseconds) to seconds. Raises ConfigError."""
    goals: dict[str, float] = {}
    for word in words:
        given, _, text = word.partition(":")
        name = _ALIASES.get(given, given)
        try:
            limit_ms = float(text)
        except ValueError:
            limit_ms = 0.0
        if name not in METRICS or not 0 < limit_ms < float("inf") or name in goals:
            raise ConfigError(
                "--goodput",
                f"{word!r} is no goal",
                remedy=f"write METRIC:MILLISECONDS, each of {', '.join(METRICS)} at most once",
            )
        goals[name] = limit_ms / 1e3
    return goals


def ttft_s(record: Record) -> float | None:
    """Sent to first content; None when there was none."""
    return record.pieces_s[0] - record.sent_s if record.pieces_s else None


def e2e_s(record: Record) -> float:
    """Sent to the end of the answer."""
    return record.end_s - record.sent_s


def tpot_s(record: Record) -> float | None:
    """Seconds a token after the first; None for answers of fewer than two tokens."""
    if not record.pieces_s or record.output_tokens < 2:
        return None
    return (record.pieces_s[-1] - record.pieces_s[0]) / (record.output_tokens - 1)


def itl_s(record: Record) -> list[float]:
    """Gaps between pieces of content."""
    return [b - a for a, b in itertools.pairwise(record.pieces_s)]


def is_good(record: Record, goals: Goals) -> bool:
    """It ended well and met every goal. A TPOT that one token cannot have is met."""
    if not record.done:
        return False
    first, each = ttft_s(record), tpot_s(record)
    found = {"ttft": first, "tpot": 0.0 if each is None else each, "e2e": e2e_s(record)}
    return all((value := found[name]) is not None and value <= goals[name] for name in goals)


def serve_results(traffic: Traffic, goals: Goals) -> dict[str, Any]:
    """Results of `rtp bench serve`. Latencies are those of requests that ended well."""
    seconds = traffic.seconds
    done = [one for one in traffic.records if one.done]
    kinds = error_kinds(traffic)
    tokens_in, tokens_out = (
        sum(one.prompt_tokens for one in done),
        sum(one.output_tokens for one in done),
    )
    return {
        "ttft_s": percentiles(_known(ttft_s(one) for one in done)),
        "tpot_s": percentiles(_known(tpot_s(one) for one in done)),
        "itl_s": percentiles([gap for one in done for gap in itl_s(one)]),
        "e2e_s": percentiles([e2e_s(one) for one in done]),
        "send_delay_s": percentiles([one.sent_s - one.due_s for one in done]),
        "requests_per_s": _rate(len(done), seconds),
        "goodput_requests_per_s": _rate(sum(is_good(one, goals) for one in done), seconds),
        "output_tokens_per_s": _rate(tokens_out, seconds),
        "total_tokens_per_s": _rate(tokens_in + tokens_out, seconds),
        "completed": len(done),
        "errors": sum(kinds.values()),
        "error_kinds": dict(kinds),
        "unfinished": sum(not one.done and one.error is None for one in traffic.records)
        if traffic.interrupted
        else 0,
        "input_tokens": tokens_in,
        "output_tokens": tokens_out,
        "cached_tokens": sum(one.cached_tokens for one in done),
        "short_answers": sum(one.output_tokens < one.asked_tokens for one in done),
        "seconds": seconds,
        "client_cpu_share": traffic.client_cpu_s / seconds if seconds > 0 else None,
    }


def error_kinds(traffic: Traffic) -> Counter[str]:
    """Failed requests by kind. One that was cut by an interrupt has not failed."""
    kinds = Counter(one.error for one in traffic.records if one.error is not None)
    if not traffic.interrupted:
        lost = sum(not one.done and one.error is None for one in traffic.records)
        kinds.update({"no end": lost} if lost else {})
    return kinds


def _rate(count: float, seconds: float) -> float | None:
    return count / seconds if seconds > 0 else None


def _known(values: Any) -> list[float]:
    return [value for value in values if value is not None]
