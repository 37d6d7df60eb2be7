"""Compiled CPU operations against torch's: linear layers of one step, and decode attention.

    python bench/cpu_kernels.py [--threads 1] [--repeats 15] [--level avx2] [--json FILE]

Shapes are SmolLM2-135M's: 4-bit layers, an 8-bit head. Weights are random and distinct for
every layer, so that caches do not hold them. The systems take turns; the minimum and the median
of the repeats are reported, in CPU time with one thread (the machine may be busy), else in wall
time. Ratios above 1 mean that the compiled operation is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch.nn import functional

from rtp_kernels import few_rows
from rtp_kernels.linear_weight import GroupCodes
from rtp_kernels.paged_attention.plan import (
    AttentionPlan,
    Batch,
    Geometry,
    Row,
    key_index,
    row_keys,
    slot_of,
)
from rtp_kernels.paged_attention.rotary import rotary_tables
from rtp_kernels.registry import resolve
from rtp_kernels_cpu import available, library, linear
from rtp_kernels_cpu.attention import paged_attention
from rtp_kernels_cpu.attention_plan import plan_rows
from rtp_kernels_cpu.weights import PackedWeight, pack

EPS = 1e-5
HIDDEN, LAYERS = 576, 30
ROWS = (1, 2, 4, 8, 16, 32, 64)
ATTENTION = ((1, 64), (1, 1024), (8, 64), (8, 512), (16, 256))
"""(sequences, keys of each)."""
GEOMETRY = Geometry(9, 3, 64, 16, 64**-0.5)
Run = Callable[[], object]
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight of every layer: [outputs, inputs], and who multiplies with it."""

    name: str
    outputs: int
    inputs: int
    bits: int = 4
    count: int = LAYERS


MATRICES = (
    Matrix("qkv", 960, HIDDEN),
    Matrix("o", HIDDEN, HIDDEN),
    Matrix("gate_up", 3072, HIDDEN),
    Matrix("down", HIDDEN, 1536),
    Matrix("head", 49152, HIDDEN, bits=8, count=1),
)


@dataclass(frozen=True, slots=True)
class Weights:
    """One matrix in the three forms, a list of `count` each."""

    matrix: Matrix
    packed: list[PackedWeight]
    int4: list[tuple[few_rows.Part, ...]]
    dense: list[torch.Tensor]


def make_weights(matrix: Matrix) -> Weights:
    shape, groups = (matrix.outputs, matrix.inputs), (matrix.outputs, matrix.inputs // 32)
    packed, int4, dense = [], [], []
    for _ in range(matrix.count):
        q = torch.randint(0, 2**matrix.bits, shape, dtype=torch.uint8)
        scale = (torch.rand(groups) * 0.01).half()
        centre = 2 ** (matrix.bits - 1)
        minimum = scale * -centre if matrix.bits == 8 else -torch.rand(groups).half()
        codes = GroupCodes(matrix.bits, q, scale, minimum)
        packed.append(pack(codes, parts=2 if matrix.name == "gate_up" else 1))
        int4.append(few_rows.pack(codes))
        dense.append(codes.dense().bfloat16())
    return Weights(matrix, packed, int4, dense)


def compiled(weights: Weights, x: torch.Tensor, norm: torch.Tensor, residual: torch.Tensor) -> None:
    for weight in weights.packed:
        match weights.matrix.name:
            case "qkv":
                linear.norm_linear(x, norm, EPS, weight)
            case "gate_up":
                linear.norm_gate_up(x, norm, EPS, weight)
            case "head":
                linear.head(x, norm, EPS, weight)
            case _:
                linear.linear_residual(x, weight, residual)


def torch_int4(weights: Weights, x: torch.Tensor) -> None:
    for parts in weights.int4:
        few_rows.product(x, parts)


def torch_bfloat16(weights: Weights, x: torch.Tensor) -> None:
    for weight in weights.dense:
        functional.linear(x, weight)


def take_turns(runs: Mapping[str, Run], repeats: int, clock: Clock) -> dict[str, dict]:
    """Seconds of each: minimum and median over `repeats`, after one turn to warm up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(repeats + 1):
        for name, run in runs.items():
            began = clock()
            run()
            if number:
                times[name].append(clock() - began)
    return {
        name: {"min_s": min(one), "median_s": statistics.median(one)} for name, one in times.items()
    }


def with_ratios(times: dict[str, dict]) -> dict[str, object]:
    ours = times["compiled"]["median_s"]
    ratios = {name: one["median_s"] / ours for name, one in times.items() if name != "compiled"}
    return {**times, "ratio": ratios}


def everything(runs: Sequence[Run]) -> None:
    for run in runs:
        run()


def linear_results(repeats: int, clock: Clock) -> list[dict]:
    weights = [make_weights(matrix) for matrix in MATRICES]
    results = []
    for rows in ROWS:
        systems: dict[str, list[Run]] = {"compiled": [], "torch_int4": [], "torch_bfloat16": []}
        for one in weights:
            x = torch.randn(rows, one.matrix.inputs).bfloat16()
            norm = torch.ones(one.matrix.inputs).bfloat16()
            residual = torch.randn(rows, HIDDEN).bfloat16()
            systems["compiled"].append(partial(compiled, one, x, norm, residual))
            systems["torch_int4"].append(partial(torch_int4, one, x))
            systems["torch_bfloat16"].append(partial(torch_bfloat16, one, x))
            runs = {name: calls[-1] for name, calls in systems.items()}
            times = with_ratios(take_turns(runs, repeats, clock))
            results.append({"operation": one.matrix.name, "rows": rows, **times})
        whole = {name: partial(everything, calls) for name, calls in systems.items()}
        times = with_ratios(take_turns(whole, repeats, clock))
        results.append({"operation": "all", "rows": rows, **times})
    return results


def rival_plan(
    rows: Sequence[Row], length: int, cos: torch.Tensor, sin: torch.Tensor
) -> AttentionPlan:
    """As the engine makes it: single tokens of like length run as one batch."""
    size = GEOMETRY.block_size
    slots = [slot_of(row.blocks, length - 1, size) for row in rows]
    if len(rows) == 1:
        keys = (row_keys(rows[0], 0, size, "cpu"),)
        return AttentionPlan(1, keys, torch.tensor(slots), slots[0], None, cos, sin, None)
    index = torch.cat([key_index(row.blocks, length, size, "cpu") for row in rows])
    batch = Batch(index, torch.zeros(len(rows), 1, 1, length, dtype=torch.bfloat16), length)
    return AttentionPlan(len(rows), (), torch.tensor(slots), -1, None, cos, sin, batch)


def attention_results(repeats: int, clock: Clock) -> list[dict]:
    rival = resolve("paged_attention", "cpu", "bfloat16")
    results = []
    for count, length in ATTENTION:
        blocks = length // GEOMETRY.block_size
        rows = [Row(length - 1, 1, list(range(i * blocks, (i + 1) * blocks))) for i in range(count)]
        inv_freq = 10000.0 ** (-torch.arange(0, 64, 2) / 64)
        cos, sin = rotary_tables(inv_freq, torch.full((count,), length - 1), torch.bfloat16)
        plan = plan_rows(rows, GEOMETRY.block_size, cos, sin)
        dense = rival_plan(rows, length, cos, sin)
        shape = (LAYERS, 3, count * length, 64)
        planes = [torch.randn(shape).bfloat16() for _ in range(2)]
        pairs = list(zip(*planes, strict=True))
        qkv = torch.randn(count, 15 * 64).bfloat16()
        runs: dict[str, Run] = {
            "compiled": lambda: [paged_attention(qkv, pair, plan, GEOMETRY) for pair in pairs],  # noqa: B023
            "torch_bfloat16": lambda: [rival(qkv, pair, dense, GEOMETRY) for pair in pairs],  # noqa: B023
        }
        times = with_ratios(take_turns(runs, repeats, clock))
        results.append({"operation": "attention", "sequences": count, "keys": length, **times})
    return results


def described(result: dict) -> str:
    """One line: what was run, medians in ms, ratios."""
    what = [str(value) for value in result.values() if not isinstance(value, dict)]
    medians = [
        f"{name} {one['median_s'] * 1e3:.2f} ms"
        for name, one in result.items()
        if isinstance(one, dict) and "median_s" in one
    ]
    ratios = [f"{ratio:.2f}x" for ratio in result["ratio"].values()]
    return "  ".join((" ".join(what), *medians, " ".join(ratios)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--level", help="instruction set, the best by default")
    parser.add_argument("--only", choices=("linear", "attention"))
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if (reason := available()) is not None:
        parser.error(reason)
    torch.set_num_threads(asked.threads)
    library.set_threads(asked.threads)
    if asked.level:
        library.use_level(asked.level)
    clock = time.thread_time if asked.threads == 1 else time.perf_counter
    with torch.inference_mode():
        parts = {"linear": linear_results, "attention": attention_results}
        chosen = [asked.only] if asked.only else list(parts)
        results = [one for name in chosen for one in parts[name](asked.repeats, clock)]
    report = {
        "schema": 1,
        "command": "cpu_kernels",
        "device": "cpu",
        "torch": torch.__version__,
        "model": "random weights of SmolLM2-135M's shapes",
        "params": {
            "threads": asked.threads,
            "repeats": asked.repeats,
            "level": library.level(),
            "clock": "cpu" if asked.threads == 1 else "wall",
            "load_average": os.getloadavg()[0],
            "geometry": asdict(GEOMETRY),
        },
        "results": results,
    }
    for one in results:
        print(described(one))
    if asked.json:
        asked.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
