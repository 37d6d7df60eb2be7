"""The engine against Hugging Face transformers, same model, dtype and threads, interleaved.

    python bench/vs_transformers.py [MODEL] [--dtype float32] [--threads 2] [--json FILE]

Each point runs both systems in turn, `--repeats` times, and compares medians of the decode
step and of the time to the first token. Ratios above 1 mean the engine is faster.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rtp_core.bench.measure import random_prompts, run_batch
from rtp_core.bench.transformers_rival import hugging_face_model, run_rival
from rtp_core.cli.options import engine_parser, parse_config
from rtp_core.config.environment import cache_dir
from rtp_core.engine.assemble import build_engine
from rtp_core.engine.contract import Engine
from rtp_core.loading.demo import resolve_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

POINTS = ((1, 64, 32), (8, 64, 24), (1, 1024, 24), (16, 256, 12))
"""(batch, prompt tokens, output tokens)."""


@dataclass(frozen=True, slots=True)
class Point:
    """Medians in seconds; `ratio` = transformers / engine."""

    batch: int
    context: int
    step_s: float
    rival_step_s: float
    step_ratio: float
    ttft_s: float
    rival_ttft_s: float
    ttft_ratio: float


def measure(
    engine: Engine, model: PreTrainedModel, shape: tuple[int, int, int], repeats: int
) -> Point:
    batch, context, output = shape
    ours: list[float] = []
    theirs: list[float] = []
    first: list[float] = []
    rival_first: list[float] = []
    for number in range(repeats + 1):
        prompts = random_prompts(batch, context, engine.info.vocab_size, seed=100 + number)
        run = run_batch(engine, prompts, output)
        rival = run_rival(model, prompts, output)
        if number:  # the first warms both up
            ours += run.step_s
            theirs += rival.step_s
            first.append(run.ttft_s)
            rival_first.append(rival.ttft_s)
    step, rival_step = statistics.median(ours), statistics.median(theirs)
    ttft, rival_ttft = statistics.median(first), statistics.median(rival_first)
    return Point(
        batch, context, step, rival_step, rival_step / step, ttft, rival_ttft, rival_ttft / ttft
    )


def main() -> None:
    parser = engine_parser("bench", "The engine against transformers, interleaved.")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments, config = parse_config(parser, sys.argv[1:])
    torch.set_num_threads(arguments.threads)
    engine = build_engine(config)
    dtype = engine.info.dtype
    model = hugging_face_model(resolve_model(config.model.path, cache_dir()), dtype)
    points = [measure(engine, model, shape, arguments.repeats) for shape in POINTS]
    print(f"threads {arguments.threads}, {dtype}, load {os.getloadavg()[0]:.1f}")
    print("batch context   step ms  rival ms  ratio   tok/s    TTFT ms  rival ms  ratio")
    for one in points:
        print(
            f"{one.batch:5d} {one.context:7d} {1e3 * one.step_s:9.2f} {1e3 * one.rival_step_s:9.2f}"
            f" {one.step_ratio:6.2f} {one.batch / one.step_s:7.1f} {1e3 * one.ttft_s:10.1f}"
            f" {1e3 * one.rival_ttft_s:9.1f} {one.ttft_ratio:6.2f}"
        )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(one) for one in points], indent=2) + "\n")


if __name__ == "__main__":
    main()
