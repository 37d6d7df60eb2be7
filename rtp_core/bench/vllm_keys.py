"""The keys that `vllm bench serve` writes, for tools that read its files.

They stand at the top of our own object, beside ``results``: same words, milliseconds, and vLLM's
definitions (E2EL ends with the last piece of content, not with the end of the answer; deviations
are those of a population).
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rtp_core.bench.client import Record
from rtp_core.bench.report import Report
from rtp_core.bench.service_level import itl_s, tpot_s, ttft_s
from rtp_core.bench.summary import PERCENTILES, quantile
from rtp_core.bench.traffic import Traffic
from rtp_core.bench.vllm_names import METRICS

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+(?=\.)|[^A-Za-z0-9._-]+|^\.+")
_LONGEST_NAME = 80


@dataclass(frozen=True, slots=True)
class Keys:
    """`metrics` and `percentiles` to tell, what was given as --metadata, and whether each
    request is told too.
    """

    metrics: tuple[str, ...] = METRICS
    percentiles: tuple[float, ...] = tuple(map(float, PERCENTILES))
    metadata: Mapping[str, str] = field(default_factory=dict)
    detailed: bool = False


def vllm_keys(report: Report, traffic: Traffic, keys: Keys) -> dict[str, Any]:
    """What is known of a run, in vLLM's words. Nothing measured is None, never 0."""
    told = report.as_json()
    params, results = told["params"], report.results
    done = [one for one in traffic.records if one.done]
    backend = "openai-chat" if params["endpoint"] == "chat" else "openai"
    found: dict[str, Any] = {
        "date": time.strftime("%Y%m%d-%H%M%S", time.gmtime()),
        "endpoint_type": backend,
        "backend": backend,
        "model_id": told["model"],
        "num_prompts": params["num_prompts"],
        "request_rate": params["request_rate"],
        "burstiness": params["burstiness"],
        "max_concurrency": params["max_concurrency"],
        "duration": results["seconds"],
        "completed": results["completed"],
        "failed": results["errors"],
        "total_input_tokens": results["input_tokens"],
        "total_output_tokens": results["output_tokens"],
        "request_throughput": results["requests_per_s"],
        "request_goodput": results["goodput_requests_per_s"] if params["goodput_ms"] else None,
        "output_throughput": results["output_tokens_per_s"],
        "total_token_throughput": results["total_tokens_per_s"],
        "max_concurrent_requests": most_at_once(traffic.records),
    }
    for metric, values in _samples(done).items():
        if metric in keys.metrics:
            found |= _summary(metric, values, keys.percentiles)
    if keys.detailed:
        found |= _each(traffic.records)
    return found | dict(keys.metadata)


def file_name(found: Mapping[str, Any]) -> str:
    """As vLLM names its files: backend, rate, concurrency, model, time."""
    most = found["max_concurrency"]
    concurrency = "" if most is None else f"-concurrency{most}"
    model = _UNSAFE.sub("_", str(found["model_id"]).rpartition("/")[2])[:_LONGEST_NAME] or "model"
    rate = f"{found['request_rate']}qps"
    return f"{found['backend']}-{rate}{concurrency}-{model}-{found['date']}.json"


def most_at_once(records: Sequence[Record]) -> int:
    """Requests under way at the same moment, at most."""
    sent = [one for one in records if one.sent_s and one.end_s]
    changes = sorted([(one.sent_s, 1) for one in sent] + [(one.end_s, -1) for one in sent])
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def _samples(done: Sequence[Record]) -> dict[str, list[float]]:
    with_content = [one for one in done if one.pieces_s]
    return {
        "ttft": [value for one in done if (value := ttft_s(one)) is not None],
        "tpot": [value for one in done if (value := tpot_s(one)) is not None],
        "itl": [gap for one in done for gap in itl_s(one)],
        "e2el": [one.pieces_s[-1] - one.sent_s for one in with_content],
    }


def _summary(
    metric: str, seconds: Sequence[float], percentiles: Sequence[float]
) -> dict[str, float | None]:
    ordered = sorted(1e3 * one for one in seconds)
    points = {f"p{point:g}": point / 100 for point in percentiles}
    if not ordered:
        return {f"{name}_{metric}_ms": None for name in ("mean", "median", "std", *points)}
    return {
        f"mean_{metric}_ms": statistics.fmean(ordered),
        f"median_{metric}_ms": quantile(ordered, 0.5),
        f"std_{metric}_ms": statistics.pstdev(ordered),
        **{f"{name}_{metric}_ms": quantile(ordered, share) for name, share in points.items()},
    }


def _each(records: Sequence[Record]) -> dict[str, list[Any]]:
    """--save-detailed: a list each, in seconds, in the order of sending."""
    began = records[0].due_s if records else 0.0
    return {
        "input_lens": [one.prompt_tokens for one in records],
        "output_lens": [one.output_tokens for one in records],
        "ttfts": [ttft_s(one) or 0.0 for one in records],
        "itls": [itl_s(one) for one in records],
        "start_times": [one.sent_s - began if one.sent_s else None for one in records],
        "errors": [one.error or "" for one in records],
    }
