"""The engine on a GPU, random weights of the Qwen3-8B shape: steps, prompts and rates.

    python -m bench.gpu [--sections decode,prefill] [--batches 1,8,32] [--json FILE]

A step is what the engine's thread takes from one delivery of tokens to the next. The floor of a
step is the bytes that it must read (weights of all linear layers, keys and values) over the
card's own copy bandwidth, measured first.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from triton import knobs

from bench.gpu import capture, error, verify
from bench.gpu.driver import Driver
from bench.gpu.shape import (
    SHAPE,
    build,
    close,
    copy_bandwidth,
    decode_floor,
    matrix_rate,
    prompt_flops,
)

DRAWING = {"temperature": 0.8, "top_k": 50, "top_p": 0.9, "presence_penalty": 0.3, "seed": 1}
Found = Iterator[tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class Card:
    """What a card does at best."""

    bandwidth: float = field(default_factory=copy_bandwidth)
    matrix_flops: float = field(default_factory=matrix_rate)


def decode(driver: Driver, card: Card, flags: argparse.Namespace) -> Found:
    for batch in numbers(flags.batches):
        found = driver.steps(batch, flags.context)
        floor = decode_floor(batch, flags.context, card.bandwidth)
        yield (
            f"decode {batch}",
            found
            | {
                "floor_s": floor,
                "ratio": found["step_s"] / floor,
                "over_device": found["step_s"] / found["device_s"],
            },
        )


def drawing(driver: Driver, card: Card, flags: argparse.Namespace) -> Found:
    for batch in numbers(flags.drawing):
        plain = driver.steps(batch, flags.context)
        found = driver.steps(batch, flags.context, **DRAWING)
        yield f"drawing {batch}", found | {"over_greedy": found["step_s"] / plain["step_s"]}


def prefill(driver: Driver, card: Card, flags: argparse.Namespace) -> Found:
    for one in shapes(flags.prefill):
        batch, length = one
        seconds = driver.prompts(batch, length)
        yield (
            f"prefill {batch}x{length}",
            {
                "seconds": seconds,
                "tokens_per_s": batch * length / seconds,
                "of_matrix_rate": prompt_flops(batch, length) / seconds / card.matrix_flops,
            },
        )


def chunk(driver: Driver, card: Card, flags: argparse.Namespace) -> Found:
    """A part of a prompt beside decoding rows, against the sum of their floors."""
    rows, length = 64, 512
    seconds = driver.chunks(rows, flags.context, length, 12)
    floor = decode_floor(rows, flags.context, card.bandwidth)
    floor += prompt_flops(1, length) / card.matrix_flops
    yield (
        f"chunk {rows}+{length}",
        {
            "step_s": seconds,
            "floor_s": floor,
            "ratio": seconds / floor,
        },
    )


def throughput(driver: Driver, card: Card, flags: argparse.Namespace) -> Found:
    for one in shapes(flags.throughput):
        yield f"throughput {'x'.join(map(str, one))}", driver.all_at_once(*one)


SECTIONS: dict[str, Callable[[Driver, Card, argparse.Namespace], Found]] = {
    "decode": decode,
    "drawing": drawing,
    "prefill": prefill,
    "chunk": chunk,
    "throughput": throughput,
}
ALONE = {"verify": verify.found, "capture": capture.found, "error": error.found}
"""Sections that build engines or models of their own."""


def numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",")]


def shapes(text: str) -> list[list[int]]:
    return [[int(part) for part in one.split("x")] for one in text.split(",")]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser("bench.gpu", description=(__doc__ or "").splitlines()[0])
    names = ",".join((*SECTIONS, *ALONE))
    parser.add_argument("--sections", default=names, help="which to run, of " + names)
    parser.add_argument("--batches", default="1,8,32,64,128,256")
    parser.add_argument("--drawing", default="1,256", help="batches whose steps draw")
    parser.add_argument("--prefill", default="1x1024,1x8192,16x1024")
    parser.add_argument("--throughput", default="512x1024x256,1024x128x128,64x8192x128")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--max-model-len", type=int, default=8448)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


class Results:
    """What was found: printed as it comes, kept for the file."""

    def __init__(self, target: Path | None) -> None:
        self._target = target
        self._all: dict[str, Any] = {
            "device": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "date": time.strftime("%Y-%m-%d"),
        }

    def add(self, name: str, found: dict[str, Any]) -> None:
        self._all[name] = found
        shown = (f"{key} {_short(value)}" for key, value in found.items())
        print(name, " ".join(shown), flush=True)
        if self._target is not None:
            self._target.write_text(json.dumps(self._all, indent=1) + "\n")


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def count_compilations() -> list[str]:
    """Kernels that are compiled from now on; a server that serves compiles none."""
    found: list[str] = []

    def compiled(*, fn: Any, repr: str, **_: Any) -> None:
        found.append(f"{fn.name}: {repr}")

    knobs.runtime.jit_post_compile_hook = compiled
    return found


def main() -> None:
    flags = parsed()
    wanted = flags.sections.split(",")
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(name)s %(message)s")
    results, card = Results(flags.json), Card()
    torch.cuda.empty_cache()
    results.add("card", {"copy_bytes_per_s": card.bandwidth, "matrix_flops": card.matrix_flops})
    if any(name in SECTIONS for name in wanted):
        began = time.perf_counter()
        engine = build(flags.max_model_len)
        phases = {one.name: one.seconds for one in engine.info.start.phases}
        results.add("start", {"build": time.perf_counter() - began, **phases})
        late = count_compilations()
        driver = Driver(engine, SHAPE["vocab_size"])
        driver.submit(64, 8)
        driver.drain()
        for name in wanted:
            if name in SECTIONS:
                for title, found in SECTIONS[name](driver, card, flags):
                    results.add(title, found)
        results.add("compiled while serving", {"count": len(late), "kernels": late})
        close(engine)
        del engine, driver
    for name in wanted:
        if name in ALONE:
            for title, found in ALONE[name]():
                results.add(title, found)


if __name__ == "__main__":
    main()
