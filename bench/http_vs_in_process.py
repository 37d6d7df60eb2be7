"""What HTTP costs: tokens a second through `rtp serve` against the same load in process.

    python bench/http_vs_in_process.py [MODEL] [--batch 1 8] [--repeats 5] [--json FILE]

Both engines have the same configuration. They take turns: each turn sends `--batch` requests at
once and waits for their ends, streamed over HTTP, then through AsyncLLM. Rates
are of the whole turn, prefill included. The share is HTTP's rate of the other's, of the fastest
turns and of the medians.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from rtp_core import AsyncLLM, SamplingParams
from rtp_core.bench.bodies import Served, body_of, inspect
from rtp_core.bench.own_server import own_server
from rtp_core.bench.prompts import Ask, random_choices
from rtp_core.bench.report import Report, Subject, device_words, num_threads
from rtp_core.bench.traffic import Route, Send, drive
from rtp_core.cli.options import engine_parser, parse_config
from rtp_core.engine.assemble import build_engine
from rtp_core.engine.prompts import PromptReader
from rtp_core.engine.thread_backend import ThreadBackend

Prompts = list[tuple[int, ...]]


def http_turn(route: Route, served: Served, prompts: Prompts, output_len: int) -> float:
    bodies = [body_of(served, "completions", Ask(one, None, output_len)) for one in prompts]
    sends = [Send(0.0, output_len, lambda body=body: body) for body in bodies]
    traffic = asyncio.run(drive(route, sends))
    assert all(one.done and one.output_tokens == output_len for one in traffic.records)
    return sum(one.output_tokens for one in traffic.records) / traffic.seconds


def async_turn(llm: AsyncLLM, prompts: Prompts, output_len: int) -> float:
    sampling = SamplingParams(temperature=0.0, max_tokens=output_len, ignore_eos=True)

    async def all_at_once() -> float:
        began = time.perf_counter()
        outputs = await asyncio.gather(*(llm.generate(list(one), sampling) for one in prompts))
        seconds = time.perf_counter() - began
        return sum(len(one.outputs[0].token_ids) for one in outputs) / seconds

    return asyncio.run(all_at_once())


def measure(
    turns: dict[str, Callable[[Prompts], float]], batches: Callable[[int], Prompts], repeats: int
) -> dict:
    """Tokens a second by system; `batches` makes fresh prompts for a turn's number."""
    rates: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(repeats + 1):
        for name, turn in turns.items():
            rate = turn(batches(number))
            if number:  # the first warms up
                rates[name].append(rate)
    found = {
        f"{name}_tokens_per_s": {"max": max(one), "median": statistics.median(one)}
        for name, one in rates.items()
    }
    http, other = rates["http"], rates["async_llm"]
    found["http_share"] = {
        "of_max": max(http) / max(other),
        "of_median": statistics.median(http) / statistics.median(other),
    }
    return found


def main() -> None:
    parser = engine_parser("bench", "Tokens a second over HTTP against in process, in turn.")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="requests at once")
    parser.add_argument("--input-len", type=int, default=64, help="prompt tokens a request")
    parser.add_argument("--output-len", type=int, default=64, help="tokens generated a request")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each system")
    parser.add_argument("--json", type=Path)
    arguments, config = parse_config(parser, sys.argv[1:])
    torch.set_num_threads(num_threads(None))
    engine = build_engine(config)
    reader = PromptReader(engine.info, config.model.chat_template)
    llm = AsyncLLM(ThreadBackend(engine), reader)
    subject = Subject(engine.info.name, device_words("auto", torch.get_num_threads()))
    lengths = {"input_len": arguments.input_len, "output_len": arguments.output_len}
    report = Report("http_vs_in_process", subject, {**lengths, "repeats": arguments.repeats})
    with own_server(config) as server:
        served = asyncio.run(inspect(server.target))
        route = Route(server.target, "/v1/completions", 600.0, None)
        for batch in arguments.batch:
            turns = {
                "http": partial(http_turn, route, served, output_len=arguments.output_len),
                "async_llm": partial(async_turn, llm, output_len=arguments.output_len),
            }
            report.results[f"batch_{batch}"] = measure(
                turns,
                partial(random_choices, batch, arguments.input_len, served.token_ids),
                arguments.repeats,
            )
            print(batch, json.dumps(report.results[f"batch_{batch}"]))
    print(f"load average {os.getloadavg()[0]:.1f}")
    asyncio.run(llm.close())
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report.as_json(), indent=2) + "\n")


if __name__ == "__main__":
    main()
