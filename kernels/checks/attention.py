"""Checks attention over pages on the GPU that is there: results, then speed.

    python kernels/checks/attention.py [--json PATH] [--tune] [--only TEXT]

A kernel rounds q, k, the weights and its result to bfloat16 once each, as torch's bfloat16
attention on the same rounded q, k and v does, so both should be equally far off from float32, and
a quarter more is let pass. Where two results are merged each was rounded before: half more.
Stored keys may be off by one rounding; all else in memory must be equal. Speed is given as a part
of the card's measured copy bandwidth. Exit code 1 when anything failed. `--tune` times neighbours
of every choice.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import triton
from checks import attention_cases as cases
from checks import attention_speed as speed
from checks.attention_launches import (
    compile_builds,
    launch_decode,
    launch_ragged,
    scratch_of,
)
from checks.attention_steps import expected, stored_right
from checks.timing import copy_bandwidth, milliseconds, recorded

from rtp_kernels.paged_attention import dense
from rtp_kernels.paged_attention.choice import DecodeChoice
from rtp_kernels.paged_attention.ragged import store
from rtp_kernels.registry import resolve
from rtp_kernels.step_attention.parts import cut
from rtp_kernels.step_attention.triton import TritonStepAttention

BAR = 1.25
"""Of torch's own error,"""
MERGED_BAR = 1.5
"""of results that are merged; plus:"""
SMALL = 3e-4


class Report:
    """What was found, and whether all of it is good."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}
        self.failures: list[str] = []

    def add(self, section: str, entry: dict[str, Any], good: bool = True) -> None:
        self.found.setdefault(section, []).append(entry | {"good": good})
        if not good:
            self.failures.append(f"{section}: {entry}")

    def attempt(self, section: str, name: str, work: Callable[[], None]) -> None:
        """A case that raises is a failure, and the others go on."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is reported
            self.add(section, {"name": name, "error": repr(error)[:500]}, False)
            print(f"FAILED {section} {name}: {error!r}"[:600], flush=True)
            torch.cuda.synchronize()


def off(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """Relative error in the Frobenius norm."""
    return float((got.float() - wanted).norm() / wanted.norm().clamp_min(1e-9))


def worst(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest relative error of a token."""
    return float(((got.float() - wanted).norm(dim=1) / wanted.norm(dim=1).clamp_min(1e-3)).max())


def compare(report: Report, one: cases.Comparison) -> None:
    """Output, log-sum-exp, every slot of the planes, and the counters."""
    step = one.step()
    out, planes, lse = expected(step)
    plain = cases.torch_bf16(step)
    logs = torch.full_like(lse, torch.nan)
    clean = True
    if isinstance(one.picked, DecodeChoice):
        scratch = scratch_of(one.geometry, one.picked, len(step.new), "cuda")
        got = launch_decode(step, one.picked, scratch, logs)
        clean = not scratch.counters.any()
    else:
        got = launch_ragged(step, one.picked, logs)
    stored = stored_right(step, planes)
    error, bar = off(got, out), BAR * off(plain, out) + SMALL
    row, row_bar = worst(got, out), 1.5 * worst(plain, out) + 3e-3
    same = torch.where(lse == logs, 0.0, (lse - logs).abs())
    entry = {
        "name": one.name, "error": error, "bar": bar, "worst": row, "worst_bar": row_bar,
        "lse": float(same.max()), "stored": stored, "counters_zero": clean,
    }  # fmt: skip
    good = error <= bar and row <= row_bar and entry["lse"] < 0.05 and stored and clean
    report.add("results", entry, bool(good))
    word = "ok    " if good else "FAILED"
    print(
        f"{word} {one.name:34} error {error:.5f} (bar {bar:.5f}) worst {row:.4f} ({row_bar:.4f}) "
        f"lse {entry['lse']:.4f} stored {stored} counters zero {clean}",
        flush=True,
    )


def replays(report: Report) -> None:
    """One captured launch serves every length; a hundred replays give the same bits."""
    one = cases.Comparison("", cases.geometry_of(), cases.some(8, 1024, 512))
    first = one.step()
    scratch = scratch_of(one.geometry, one.picked, 8, "cuda")
    held: list[torch.Tensor] = []

    def run() -> None:
        held[:] = [launch_decode(first, one.picked, scratch) for _ in range(12)]

    graph = recorded(run)
    wanted, _, _ = expected(first)
    graph.replay()
    kept = held[0].clone()
    good = off(kept, wanted) < 5e-3
    for _ in range(100):
        graph.replay()
        good &= all(torch.equal(result, kept) for result in held)
    # Other lengths, in the same memory: rows shortened to half.
    first.tables.lengths.copy_(first.tables.lengths // 2)
    graph.replay()
    eager = launch_decode(first, one.picked, scratch)
    good &= all(torch.equal(result, eager) for result in held) and not torch.equal(eager, kept)
    good &= not scratch.counters.any()
    report.add("results", {"name": "replays"}, bool(good))
    print("ok     replays" if good else "FAILED replays", flush=True)


def dense_forms(report: Report) -> None:
    """cuDNN on whole prompts and after a prefix, against float32."""
    for lengths, new in (((512, 512), (512, 512)), ((1280,), (512,))):
        one = cases.Comparison("", cases.geometry_of(), lengths, new)
        step = one.step()
        out, _, lse = expected(step)
        times = MERGED_BAR if lengths > new else BAR
        bar = times * off(cases.torch_bf16(step), out) + SMALL
        store(step.qkv, step.planes, step.tables, step.geometry, step.norms, new[0])
        logs = torch.empty_like(lse)
        got = dense.dense_chunk(
            step.qkv, step.planes, step.tables.block_tables, step.geometry, new[0],
            lengths[0] - new[0], logs,
        )  # fmt: skip
        error, log = off(got, out), float((logs - lse).abs().max())
        name = f"cudnn {len(new)} x {new[0]} after {lengths[0] - new[0]}"
        good = error <= bar and log < 0.05
        report.add("results", {"name": name, "error": error, "bar": bar, "lse": log}, good)
        print(f"{'ok    ' if good else 'FAILED'} {name} error {error:.5f} ({bar:.5f})", flush=True)


def step_forms(report: Report) -> None:
    """A step whose rows go through cuDNN, the kernel, and both."""
    new = (1024, 1024, 300, 512, 2048, 4196, 64)
    cached = (0, 0, 0, 0, 2048, 0, 700)
    lengths = tuple(n + before for n, before in zip(new, cached, strict=True))
    one = cases.Comparison("", cases.geometry_of(), lengths, new)
    step, runs = one.step(), tuple(zip(new, cached, strict=True))
    out, planes, _ = expected(step)
    bar = MERGED_BAR * off(cases.torch_bf16(step), out) + SMALL
    form = TritonStepAttention(uses_dense=True)
    form.store(step.qkv, step.planes, step.tables, step.geometry, step.norms, step.max_new)
    got = form.ragged(step.qkv, step.planes, step.tables, step.geometry, step.max_new, runs)
    error, row = off(got, out), worst(got, out)
    parts = [part.length for part in cut(runs, step.geometry)]
    good = error <= bar and row < 0.02 and stored_right(step, planes)
    entry = {"name": "step", "error": error, "bar": bar, "worst": row, "dense": parts}
    report.add("results", entry, good)
    word = "ok    " if good else "FAILED"
    print(f"{word} step, cuDNN takes {parts}: error {error:.5f} ({bar:.5f}) worst {row:.4f}")


def moves(report: Report) -> None:
    """Blocks and merges against their definitions, and how fast blocks move."""
    form = {
        name: (resolve(name, "cuda", "bfloat16"), resolve(name, "cuda", "float32"))
        for name in ("block_copy", "block_gather", "block_scatter", "merge_attention")
    }
    plane = torch.randn(36, 8, 512 * 16, 128, device="cuda").bfloat16()
    pairs = [(n, 256 + n) for n in range(200)] + [(300, 3), (3, 511)]
    one, two = plane.clone(), plane.clone()
    form["block_copy"][0](one, pairs, 16)
    form["block_copy"][1](two, pairs, 16)
    right = {"copied": torch.equal(one, two)}
    blocks = torch.randperm(512, device="cuda").int()[:300]
    staged = form["block_gather"][0](plane, blocks, 16)
    right["gathered"] = torch.equal(staged, form["block_gather"][1](plane, blocks, 16))
    form["block_scatter"][0](staged, one.zero_(), blocks, 16)
    form["block_scatter"][1](staged, two.zero_(), blocks, 16)
    right["scattered"] = torch.equal(one, two)
    parts = torch.randn(3, 100, 32, 128, device="cuda").bfloat16()
    lse = torch.randn(3, 100, 32, device="cuda") * 3
    lse[1, :50] = -torch.inf
    merged, wanted = form["merge_attention"][0](parts, lse), form["merge_attention"][1](parts, lse)
    right["merged"] = off(merged[0], wanted[0].float()) < 3e-3
    right["lse"] = torch.allclose(merged[1], wanted[1], atol=1e-4)
    gathered = milliseconds(lambda: form["block_gather"][0](plane, blocks, 16, staged))
    rate = 2 * staged.nbytes / gathered / 1e6
    good = all(right.values())
    report.add("results", {"name": "blocks and merge", "gather_GBps": rate, **right}, good)
    word = "ok    " if good else "FAILED"
    print(f"{word} blocks and merge {right}; gather {rate:.0f} GB/s", flush=True)


def decode_speed(report: Report, copy: float, shape: speed.Shape, tune: bool) -> None:
    """One line; with `tune`, the best neighbours too."""
    layers = speed.layers_of(shape)
    us = speed.decode_us(shape, layers, shape.picked)
    part, goal = shape.bytes / us * 1e6 / copy, speed.goal(shape)
    good = goal is None or part >= goal
    entry = {
        "shape": shape.name, "block": shape.block, "MB": shape.bytes >> 20, "us": us,
        "part": part, "goal": goal, "choice": asdict(shape.picked),
    }  # fmt: skip
    report.add("decode", entry, good)
    print(
        f"{'ok    ' if good else 'BELOW '} {shape.name:22} pages of {shape.block} "
        f"{us:8.1f} us {part:6.1%} of copy (goal {goal}) {shape.picked}",
        flush=True,
    )
    if tune and shape.block == 16:
        tune_shape(report, shape, layers, us)
    del layers
    torch.cuda.empty_cache()


def tune_shape(report: Report, shape: speed.Shape, layers: speed.Layers, us: float) -> None:
    """Time every candidate; report the five best."""
    times = []
    for choice in speed.candidates(shape):
        try:
            times.append((speed.decode_us(shape, layers, choice), choice))
        except Exception as error:  # noqa: BLE001 - a candidate may not fit the card
            print(f"       {choice}: {error!r}"[:200], flush=True)
    best = sorted(times, key=lambda one: one[0])[:5]
    for found, choice in best:
        print(f"       {found:8.1f} us {found / us:.3f} of the table's {choice}", flush=True)
    entry = {"shape": shape.name, "best": [{"us": us} | asdict(choice) for us, choice in best]}
    report.add("tuned", entry)


def prompt_speed(report: Report, prompts: tuple[int, int, int], tune: bool) -> None:
    """A line a form."""
    for one in speed.prompt_times(*prompts, tune):
        report.add("prompts", asdict(one))
        print(
            f"       {one.prompts:18} {one.form:22} {one.ms:8.3f} ms {one.rate:6.0f} {one.unit:8}"
            f" launched one by one {one.eager_ms:8.3f} ms",
            flush=True,
        )
    torch.cuda.empty_cache()


def check_results(report: Report, options: argparse.Namespace) -> None:
    """Compile everything, then compare."""
    comparisons = [*cases.decoding(), *cases.verifying(), *cases.prompts()]
    comparisons = [one for one in comparisons if options.only in one.name]
    if options.skip_results:
        comparisons = []
    builds = [one.build for one in comparisons]
    if not options.only:
        builds += speed.decode_builds(options.tune) + speed.prompt_builds(options.tune)
    for error in compile_builds(builds):
        report.add("compilation", {"error": error}, False)
        print("FAILED to compile", error, flush=True)
    for one in comparisons:
        report.attempt("results", one.name, lambda one=one: compare(report, one))
    if not options.only and not options.skip_results:
        for check in (replays, dense_forms, step_forms, moves):
            report.attempt("results", check.__name__, lambda check=check: check(report))


def check_speed(report: Report, tune: bool) -> None:
    """Decoding, verification and prompts."""
    copy = copy_bandwidth()
    torch.cuda.empty_cache()
    report.found["copy_GBps"] = copy / 1e9
    print(f"copy {copy / 1e9:.0f} GB/s", flush=True)
    for shape in speed.shapes():
        report.attempt(
            "decode", shape.name, lambda shape=shape: decode_speed(report, copy, shape, tune)
        )
    for prompts in speed.PROMPTS:
        report.attempt(
            "prompts", str(prompts), lambda prompts=prompts: prompt_speed(report, prompts, tune)
        )


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--only", default="", help="results whose name contains this; no speed")
    parser.add_argument("--skip-results", action="store_true")
    options = parser.parse_args()
    began = time.perf_counter()
    report = Report()
    print(torch.cuda.get_device_name(), torch.__version__, triton.__version__, flush=True)
    check_results(report, options)
    print(f"results after {time.perf_counter() - began:.0f} s", flush=True)
    if not options.only:
        check_speed(report, options.tune)
    report.found["seconds"] = time.perf_counter() - began
    report.found["failures"] = report.failures
    if options.json:
        options.json.write_text(json.dumps(report.found, indent=1))
    print(f"{len(report.failures)} failures, {report.found['seconds']:.0f} s", flush=True)
    if options.tune:
        print(json.dumps(report.found.get("tuned", [])))
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
