"""Latency and throughput of an engine in this process, step by step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rtp_core.api import Request, SamplingParams
from rtp_core.bench.summary import spread
from rtp_core.config.schema import EngineConfig
from rtp_core.engine.contract import Engine
from rtp_core.engine.prepare import Prepared, prepare
from rtp_core.errors import ConfigError

Prompts = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Load:
    """`num_requests` at once, each of so many tokens in and out."""

    input_len: int
    output_len: int
    num_requests: int


@dataclass(slots=True)
class Run:
    """Seconds of one batch: to the last first token, of each decode step, host part, all.

    `ttft_s` is None in a batch that was cut short before. Decode steps are those in which
    every sequence of the batch got tokens, `step_tokens` in all.
    """

    ttft_s: float | None = None
    step_s: list[float] = field(default_factory=list)
    step_tokens: list[int] = field(default_factory=list)
    host_s: list[float] = field(default_factory=list)
    total_s: float | None = None
    num_tokens: int = 0


def check_fits(config: EngineConfig, load: Load, *, together: bool) -> Prepared:
    """Refuse, before weights are read, what the engine could not run as it is meant.

    With `together` the whole batch must decode side by side. Raises ConfigError. What was
    prepared for that says what a step reads.
    """
    prepared = prepare(config)
    limits, budget = prepared.context.limits, prepared.budget
    check_length(load.input_len, load.output_len, limits.max_model_len)
    if not together:
        return prepared
    if load.num_requests > limits.max_num_seqs:
        raise ConfigError(
            "--batch-size",
            f"{load.num_requests} is above scheduling.max_num_seqs, {limits.max_num_seqs}",
            remedy=f"lower it or pass --max-num-seqs {load.num_requests}",
        )
    blocks = load.num_requests * -(-(load.input_len + load.output_len) // budget.block_size)
    least = min(budget.num_blocks)
    if blocks > least:
        raise ConfigError(
            "--batch-size",
            f"{load.num_requests} sequences of {load.input_len + load.output_len} tokens need "
            f"{blocks} KV blocks and there are {least}",
            remedy="lower it, the lengths, or give the cache more with --set kv.memory=BYTES",
        )
    return prepared


def check_length(input_len: int, output_len: int, max_model_len: int) -> None:
    """Raises ConfigError when one request is longer than the model's context."""
    if input_len + output_len > max_model_len:
        raise ConfigError(
            "--input-len",
            f"{input_len} tokens in and {output_len} out are above the model's context of "
            f"{max_model_len} tokens",
            remedy="lower --input-len or --output-len",
        )


def run_batch(engine: Engine, prompts: Prompts, output_lens: Sequence[int], run: Run) -> None:
    """Greedy requests to their ends, timing every step into `run` as it goes."""
    began = time.perf_counter()
    for number, (prompt, length) in enumerate(zip(prompts, output_lens, strict=True)):
        sampling = SamplingParams(temperature=0.0, max_tokens=length, ignore_eos=True)
        name = f"bench-{began}-{number}"
        engine.submit(Request(name, tuple(prompt), sampling, time.monotonic()))
    waiting = len(prompts)
    begun: set[str] = set()
    while engine.has_work:
        host_before = engine.stats().step_host_seconds
        at = time.perf_counter()
        events = engine.step()
        now = time.perf_counter()
        tokens = sum(len(event.token_ids) for event in events)
        run.num_tokens += tokens
        if run.ttft_s is None:
            begun.update(event.request_id for event in events if event.token_ids)
            run.ttft_s = now - began if len(begun) == waiting else None
        elif len(events) == waiting:
            run.step_s.append(now - at)
            run.step_tokens.append(tokens)
            run.host_s.append(engine.stats().step_host_seconds - host_before)
    run.total_s = time.perf_counter() - began


def latency_results(runs: Sequence[Run], load: Load) -> dict[str, Any]:
    """Results of `rtp bench latency`, over all steps of all runs."""
    steps = [step for run in runs for step in run.step_s]
    tokens = [count for run in runs for count in run.step_tokens]
    first = [run.ttft_s for run in runs if run.ttft_s is not None]
    return {
        "ttft_s": spread(first),
        "decode_step_s": spread(steps),
        "decode_tokens_per_s": spread([n / s for n, s in zip(tokens, steps, strict=True)]),
        "prefill_tokens_per_s": spread([load.num_requests * load.input_len / s for s in first]),
        "host_overhead_s_per_step": spread([host for run in runs for host in run.host_s]),
    }


def throughput_results(runs: Sequence[Run], prompts: Sequence[Prompts]) -> dict[str, Any]:
    """Results of `rtp bench throughput`: rates over each whole run."""
    done = [
        (run, len(asked), sum(map(len, asked)), run.total_s)
        for run, asked in zip(runs, prompts, strict=False)
        if run.total_s is not None
    ]
    return {
        "requests_per_s": spread([count / s for _, count, _, s in done]),
        "output_tokens_per_s": spread([run.num_tokens / s for run, _, _, s in done]),
        "total_tokens_per_s": spread([(run.num_tokens + given) / s for run, _, given, s in done]),
    }
