"""Checks and times the linear operations on a GPU: run from the repository's root.

    python kernels/checks/linear.py --json linear.json
    python kernels/checks/linear.py --tune 8,32 --limit 100 --json best.json

Correctness against float32 on fresh inputs, with everything that is allocated full of NaN; then
the time of each operation, and of all linear layers of a step in one CUDA graph, beside cuBLAS
and the floor that the card's own copy bandwidth sets. A case that fails is reported and the
others go on; the exit status is 1 then.
"""

# ruff: noqa: E402 - where modules are found is set before they are imported
from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import torch
from checks.timing import copy_bandwidth, milliseconds, recorded
from linear_cases import (
    QWEN3_8B,
    SMOLLM2_135M,
    Linear,
    alternatives,
    bound,
    call,
    compile_in_parallel,
    inputs_of,
    library,
    normal,
    weight_of,
)
from linear_chain import Chain, as_table, compare, tune

from rtp_kernels.gpu.residual import settled
from rtp_kernels.registry import resolve

ROWS = (1, 2, 3, 5, 8, 16, 17, 32, 64, 100, 128, 160, 256, 1024)
COMPILED_ROWS = (1, 8, 32, 64, 128, 256)
TIMED_ROWS = (1, 8, 32, 64, 128, 256)
CALLS = 24
CHAIN_BAR = 0.05
"""Of the difference between two chains of 36 layers that round in different places."""
BEGAN = time.monotonic()


def say(text: str) -> None:
    """With the seconds since the start."""
    print(f"[{time.monotonic() - BEGAN:5.1f}] {text}", flush=True)


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """What is allocated is full of NaN."""

    def poison(make: Any) -> Any:
        def made(*args: Any, **kwargs: Any) -> torch.Tensor:
            out = make(*args, **kwargs)
            return out.fill_(torch.nan) if out.is_floating_point() else out

        return made

    with contextlib.ExitStack() as stack:
        for name in ("empty", "empty_like"):
            stack.enter_context(mock.patch.object(torch, name, poison(getattr(torch, name))))
        yield


def error_of(linear: Linear, weight: Any, wide: Any, rows: int, bias: Any) -> tuple[float, float]:
    """Relative errors of ours and of the definition in bfloat16."""
    given = inputs_of(linear, rows)
    floats = tuple(one.float() for one in given)
    exact = call(
        linear,
        resolve(linear.operation, "cuda", "float32"),
        wide,
        floats,
        None if bias is None else bias.float(),
    )
    reference = resolve(linear.operation, "anything", "bfloat16")
    plain = call(linear, reference, weight, given, bias).float()
    with poisoned():
        ours = settled(call(linear, bound(linear.operation), weight, given, bias)).float()
    torch.cuda.synchronize()
    norm = exact.norm()
    return ((ours - exact).norm() / norm).item(), ((plain - exact).norm() / norm).item()


def correctness() -> list[dict[str, Any]]:
    """Every shape at every number of rows."""
    results = []
    for linear in (*QWEN3_8B, *SMOLLM2_135M):
        weight = weight_of(linear)
        wide = weight.float()
        worst = 0.0
        for rows in ROWS:
            for biased in (False, True) if linear.name == "qkv" else (False,):
                bias = normal(linear.outputs) if biased else None
                result: dict[str, Any] = {
                    "model": linear.model,
                    "name": linear.name,
                    "rows": rows,
                    "bias": biased,
                }
                try:
                    ours, plain = error_of(linear, weight, wide, rows, bias)
                    good = ours <= 1.1 * plain + 5e-4  # false for NaN
                    result |= {"error": ours, "reference_error": plain, "ok": good}
                    worst = max(worst, ours)
                except Exception as error:  # noqa: BLE001 - reported; the others go on
                    result |= {"ok": False, "raised": repr(error)[:300]}
                if not result["ok"]:
                    say(f"WRONG {result}")
                results.append(result)
        say(f"{linear.model} {linear.name}: largest error {worst:.2e}")
        del weight, wide
        torch.cuda.empty_cache()
    return results


def time_call(linear: Linear, weights: list[torch.Tensor], rows: int, choose: Any) -> float:
    """Microseconds of one call among many, each with other weights than the one before."""
    run, given = bound(linear.operation, choose), inputs_of(linear, rows)

    def work() -> None:
        for at in range(CALLS):
            call(linear, run, weights[at % len(weights)], given)

    return 1e3 * milliseconds(recorded(work).replay, repeats=9) / CALLS


def speed(bandwidth: float) -> list[dict[str, Any]]:
    """Each operation alone."""
    results = []
    say("            rows     us   cuBLAS  of floor")
    for linear in QWEN3_8B:
        weights = [weight_of(linear) for _ in range(3 if linear.name == "head" else 8)]
        for rows in TIMED_ROWS:
            result: dict[str, Any] = {"name": linear.name, "rows": rows}
            try:
                ours = time_call(linear, weights, rows, None)
                plain = time_call(linear, weights, rows, library)
                floor = linear.bytes(rows) / bandwidth * 1e6
                fraction = floor / ours
                result |= {
                    "us": ours,
                    "library_us": plain,
                    "floor_us": floor,
                    "fraction_of_floor": fraction,
                    "ok": True,
                }
                say(f"{linear.name:10s} {rows:5d} {ours:7.1f} {plain:7.1f} {fraction:8.1%}")
            except Exception as error:  # noqa: BLE001 - reported; the others go on
                result |= {"ok": False, "raised": repr(error)[:300]}
                say(f"FAILED {result}")
            results.append(result)
        del weights
        torch.cuda.empty_cache()
    return results


def chains(bandwidth: float) -> list[dict[str, Any]]:
    """All linear layers of a step."""
    chain, results = Chain(), []
    say("chain  rows      ms   cuBLAS   floor  of floor  difference")
    for rows in TIMED_ROWS:
        try:
            result = compare(chain, rows, bandwidth)
            result["ok"] = result["difference"] < CHAIN_BAR
            say(
                f"{'' if result['ok'] else 'WRONG'} {rows:9d} {result['ms']:8.3f} "
                f"{result['library_ms']:8.3f} {result['floor_ms']:7.3f} "
                f"{result['fraction_of_floor']:8.1%} {result['difference']:10.2e}"
            )
        except Exception as error:  # noqa: BLE001 - reported; the others go on
            result = {"rows": rows, "ok": False, "raised": repr(error)[:300]}
            say(f"FAILED {result}")
        results.append(result)
    return results


def check() -> tuple[dict[str, Any], bool]:
    """Everything; whether all is well."""
    cases = [
        (linear, rows, None) for linear in (*QWEN3_8B, *SMOLLM2_135M) for rows in COMPILED_ROWS
    ]
    for failed in compile_in_parallel(cases):
        say(f"FAILED {failed}")
    say("compiled")
    bandwidth = copy_bandwidth()
    say(f"{torch.cuda.get_device_name()}: copies at {bandwidth / 1e12:.3f} TB/s")
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "copy_bytes_per_s": bandwidth,
        "correctness": correctness(),
        "speed": speed(bandwidth),
        "chain": chains(bandwidth),
    }
    parts = (report["correctness"], report["speed"], report["chain"])
    wrong = sum(not one["ok"] for part in parts for one in part)
    say(f"{wrong} of {sum(map(len, parts))} wrong")
    return report, wrong == 0


def tuned(rows: list[int], limit: float) -> dict[str, Any]:
    """The best table found within `limit` seconds."""
    deadline = BEGAN + limit
    cases = [
        (linear, count, form)
        for count in rows
        for linear in QWEN3_8B
        for form in (None, *alternatives(linear, count))
    ]
    for failed in compile_in_parallel(cases):
        say(f"FAILED {failed}")
    say(f"compiled {len(cases)} cases")
    chain, found = Chain(), []
    for count in rows:
        best, shortest = tune(chain, count, deadline, say)
        say(f"rows {count}: {shortest:.3f} ms at best")
        found.append((count, best))
    table = as_table(found)
    print(json.dumps(table, indent=1))
    return table


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--tune", help="numbers of rows, as 8,32: search for better forms")
    parser.add_argument("--limit", type=float, default=100, help="seconds that a search may take")
    given = parser.parse_args()
    if given.tune:
        report, good = tuned([int(one) for one in given.tune.split(",")], given.limit), True
    else:
        report, good = check()
    if given.json:
        given.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
