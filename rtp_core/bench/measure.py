"""Measurements of an in-process engine, in the schema of the benchmark JSON."""

from __future__ import annotations

import platform
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from rtp_core import __version__
from rtp_core.api import Request, SamplingParams
from rtp_core.config.schema import EngineConfig
from rtp_core.engine.assemble import build_engine
from rtp_core.engine.contract import Engine

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Load:
    """Tokens in and out a request, requests at once, repeats of the whole."""

    input_len: int
    output_len: int
    num_requests: int
    repeats: int


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds of one batch: to the first token, of each later step, host part, all."""

    ttft_s: float
    step_s: tuple[float, ...]
    host_s: tuple[float, ...]
    total_s: float
    num_tokens: int


def measure_latency(config: EngineConfig, load: Load) -> dict[str, Any]:
    """One batch of equal requests; TTFT, decode step and prefill rate."""
    engine = build_engine(config)
    runs = _repeat(engine, load)
    steps = [step for run in runs for step in run.step_s]
    host = [step for run in runs for step in run.host_s]
    prefill = [load.num_requests * load.input_len / run.ttft_s for run in runs]
    results = {
        "ttft_s": spread([run.ttft_s for run in runs]),
        "decode_step_s": spread(steps),
        "decode_tokens_per_s": spread([load.num_requests / step for step in steps]),
        "prefill_tokens_per_s": spread(prefill),
        "host_overhead_s_per_step": spread(host),
    }
    return report("latency", engine, load, results)


def measure_throughput(config: EngineConfig, load: Load) -> dict[str, Any]:
    """All requests at once; rates over the whole run."""
    engine = build_engine(config)
    runs = _repeat(engine, load)
    seconds = [run.total_s for run in runs]
    generated = runs[0].num_tokens
    both = generated + load.num_requests * load.input_len
    results = {
        "requests_per_s": spread([load.num_requests / s for s in seconds]),
        "output_tokens_per_s": spread([generated / s for s in seconds]),
        "total_tokens_per_s": spread([both / s for s in seconds]),
    }
    return report("throughput", engine, load, results)


def run_batch(engine: Engine, prompts: Sequence[tuple[int, ...]], output_len: int) -> Run:
    """Run equal-length greedy requests to their ends, timing every step."""
    sampling = SamplingParams(temperature=0.0, max_tokens=output_len, ignore_eos=True)
    began = time.perf_counter()
    for number, prompt in enumerate(prompts):
        engine.submit(Request(f"bench-{began}-{number}", prompt, sampling, time.monotonic()))
    first: float | None = None
    seen: set[str] = set()
    steps: list[float] = []
    host: list[float] = []
    count = 0
    while engine.has_work:
        at = time.perf_counter()
        host_before = engine.stats().step_host_seconds
        events = engine.step()
        seconds = time.perf_counter() - at
        count += sum(len(event.token_ids) for event in events)
        if first is not None:
            steps.append(seconds)
            host.append(engine.stats().step_host_seconds - host_before)
            continue
        seen.update(event.request_id for event in events if event.token_ids)
        if len(seen) == len(prompts):
            first = time.perf_counter() - began
    return Run(first or 0.0, tuple(steps), tuple(host), time.perf_counter() - began, count)


def random_prompts(count: int, length: int, vocab_size: int, seed: int) -> list[tuple[int, ...]]:
    """Prompts that share no prefix, so that the prefix cache cannot help."""
    draw = random.Random(seed)
    return [tuple(draw.randrange(vocab_size) for _ in range(length)) for _ in range(count)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, 5th and 95th percentile and count; zeros when nothing was measured."""
    if not values:
        return {"median": 0.0, "p5": 0.0, "p95": 0.0, "n": 0}
    ordered = sorted(values)
    last = len(ordered) - 1
    return {
        "median": statistics.median(ordered),
        "p5": ordered[round(0.05 * last)],
        "p95": ordered[round(0.95 * last)],
        "n": len(ordered),
    }


def report(command: str, engine: Engine, load: Load, results: dict[str, Any]) -> dict[str, Any]:
    """The one JSON object every benchmark writes."""
    return {
        "schema": SCHEMA,
        "command": command,
        "version": __version__,
        "device": f"cpu, {torch.get_num_threads()} threads, {platform.processor() or 'unknown'}",
        "torch": torch.__version__,
        "model": engine.info.name,
        "params": {**asdict(load), "dtype": engine.info.dtype},
        "results": results,
    }


def _repeat(engine: Engine, load: Load) -> list[Run]:
    runs = []
    for number in range(load.repeats + 1):  # the first warms up
        prompts = random_prompts(
            load.num_requests, load.input_len, engine.info.vocab_size, seed=number
        )
        runs.append(run_batch(engine, prompts, load.output_len))
    return runs[1:]
