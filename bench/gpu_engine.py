"""The engine on a GPU, random weights of a known shape: steps, prompts, rates, errors.

    python bench/gpu_engine.py [--shape qwen3-30b-a3b] [--sections decode,verify] [--batches 1,8,32]
        [--prefill 1x1024,16x1024] [--throughput 512x1024x256] [--json FILE]

A step is what the engine's thread takes from one delivery of tokens to the next. The floor of a
step is the bytes that it must read (weights of all linear layers, keys and values) over the
card's own copy bandwidth, measured first; that of a prompt its FLOPs over the card's own rate.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gpu import chunk, error, verify
from gpu.inside import capture_cost
from gpu.session import Session, build, release
from gpu.work import SHAPES, Card, Work
from triton import knobs

from rtp_core import __version__

SECTIONS = "decode,drawing,prefill,throughput,chunk,capture,verify,error"
DRAWING = {"temperature": 0.8, "top_k": 50, "top_p": 0.9, "presence_penalty": 0.3, "seed": 1}


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="qwen3-8b")
    parser.add_argument("--sections", default=SECTIONS, help=f"of {SECTIONS}")
    parser.add_argument("--batches", default="1,8,32,64,128,256")
    parser.add_argument("--drawing", default="1,256", help="batches whose steps draw")
    parser.add_argument("--verify", default="1,8,32", help="batches with four drafts a row")
    parser.add_argument("--error", default="1,8,32", help="batches whose logits are compared")
    parser.add_argument("--prefill", default="1x1024,1x8192,16x1024")
    parser.add_argument("--throughput", default="512x1024x256,1024x128x128,64x8192x128")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--max-model-len", type=int, default=8448)
    parser.add_argument("--json", type=Path)
    flags = parser.parse_args()
    flags.sections = listed(flags.sections)
    flags.shape = SHAPES[flags.shape]
    unknown = set(flags.sections) - set(listed(SECTIONS))
    if unknown:
        parser.error(f"--sections: {', '.join(sorted(unknown))} is none of {SECTIONS}")
    return flags


def listed(text: str) -> list[str]:
    return [one for one in text.split(",") if one]


def numbers(text: str, separator: str = ",") -> list[int]:
    return [int(one) for one in text.split(separator) if one]


class Report:
    """Results by name; a section that fails is told and the others go on."""

    def __init__(self, file: Path | None) -> None:
        self.results: dict[str, Any] = {}
        self.failed: list[str] = []
        self._file = file

    def add(self, name: str, found: dict[str, Any]) -> None:
        self.results[name] = found
        print(name, " ".join(f"{key} {value:.5g}" for key, value in found.items()), flush=True)
        self.save()

    def attempt(self, section: str, run: Callable[[], None]) -> None:
        try:
            run()
        except Exception:  # noqa: BLE001 (what else can be measured is worth having)
            traceback.print_exc()
            self.failed.append(section)
            self.results["failed"] = self.failed
            self.save()

    def save(self) -> None:
        if self._file:
            self._file.write_text(json.dumps(self.results, indent=1) + "\n")


class Sections:
    """One method a section of those that an engine without drafts serves."""

    def __init__(self, flags: argparse.Namespace, card: Card, report: Report) -> None:
        self.flags, self.card, self.report = flags, card, report
        self.work = Work.of(flags.shape)
        began = time.perf_counter()
        engine = build(flags.shape, max_model_len=flags.max_model_len)
        report.add("build", {"seconds": time.perf_counter() - began})
        report.add("start", {one.name: one.seconds for one in engine.info.start.phases})
        self.session = Session(engine, flags.shape["vocab_size"])
        self.session.submit(64, 8)
        self.session.drain()

    def decode(self) -> None:
        for batch in numbers(self.flags.batches):
            self.plain(batch)

    def plain(self, batch: int) -> None:
        """Plain decoding of a batch, unless it is measured already."""
        name, context = f"decode {batch}", self.flags.context
        if name not in self.report.results:
            found = self.session.decode(batch, context)
            floor = self.card.decode_floor(self.work, batch, context)
            self.report.add(name, found | {"floor_s": floor, "ratio": found["step_s"] / floor})

    def drawing(self) -> None:
        for batch in numbers(self.flags.drawing):
            found = self.session.decode(batch, self.flags.context, **DRAWING)
            self.report.add(f"drawing {batch}", found)

    def prefill(self) -> None:
        for one in listed(self.flags.prefill):
            batch, length = numbers(one, "x")
            seconds = self.session.prompts(batch, length)
            rates = {
                "seconds": seconds,
                "tokens_per_s": batch * length / seconds,
                "of_matrix_rate": batch * self.card.prompt_floor(self.work, length) / seconds,
            }
            self.report.add(f"prefill {one}", rates)

    def throughput(self) -> None:
        for one in listed(self.flags.throughput):
            self.report.add(f"throughput {one}", self.session.all_at_once(*numbers(one, "x")))

    def chunk(self) -> None:
        self.report.add("chunk", chunk.chunk(self.session, self.work, self.card))

    def capture(self) -> None:
        found = capture_cost(self.session.engine, self.flags.context)
        self.report.add("capture", found)

    def verify(self) -> None:
        """Only what `verify_all` compares with."""
        for batch in numbers(self.flags.verify):
            self.plain(batch)

    def close(self) -> None:
        release(self.session.engine)


def verify_all(flags: argparse.Namespace, report: Report) -> None:
    """An engine of its own, with room for drafts."""
    engine = build(flags.shape, **verify.SECTIONS)
    for batch in numbers(flags.verify):
        found = verify.verify(engine, flags.shape["vocab_size"], batch, flags.context)
        for name, one in verify.against_plain(found, report.results[f"decode {batch}"]).items():
            report.add(f"verify {batch} {name}", one)
    release(engine)


def error_all(flags: argparse.Namespace, report: Report) -> None:
    for name, one in error.error(flags.shape, numbers(flags.error)).items():
        report.add(name, one)


def count_compilations() -> list[str]:
    """Names of kernels that are compiled from now on; a server that serves compiles none."""
    found: list[str] = []

    def compiled(*, fn: Any, **_: Any) -> None:
        found.append(fn.name)

    knobs.runtime.jit_post_compile_hook = compiled
    return found


def with_one_engine(flags: argparse.Namespace, card: Card, report: Report) -> None:
    wanted = [one for one in listed(SECTIONS) if one in flags.sections and one != "error"]
    if not wanted:
        return
    sections = Sections(flags, card, report)
    late = count_compilations()
    for section in wanted:
        report.attempt(section, getattr(sections, section))
    knobs.runtime.jit_post_compile_hook = None
    report.results["compiled_while_serving"] = late
    print("compiled while serving:", *late, flush=True)
    sections.close()


def main() -> int:
    flags = parsed()
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(name)s %(message)s")
    report = Report(flags.json)
    names = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    report.results |= {**names, "rtp": __version__, "sections": flags.sections}
    card = Card.measured()
    print(names["device"], card, flush=True)
    report.results |= vars(card)
    report.attempt("engine", lambda: with_one_engine(flags, card, report))
    if "verify" in flags.sections:
        report.attempt("verify", lambda: verify_all(flags, report))
    if "error" in flags.sections:
        report.attempt("error", lambda: error_all(flags, report))
    report.save()
    return int(bool(report.failed))


if __name__ == "__main__":
    sys.exit(main())
