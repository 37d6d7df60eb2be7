"""Weights from slow storage: our loaders against memory maps and transformers' own loading.

    python bench/slow_storage.py [MODEL] [--latency-ms 5 20] [--bandwidth 250] [--repeats 3]

A FUSE mount passes the model's files through a link of the latency and bandwidth asked for; it
is made anew for every run, so that no page is in memory. Where nothing can be mounted the same
link is emulated in this process, for the readers that take one. A quantized model is written
out in bfloat16 once. Times run from the path to parameters in memory: headers, plan and bytes.
The limit is that of the link: no reader can have the bytes sooner. A mount served by Python tops
out at some hundred MB/s on two cores: keep the bandwidth below that, or the limit is not the link.
"""

from __future__ import annotations

import argparse
import json
import logging
import mmap
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rtp_core.api import (
    LoadStats,
    ParameterSpec,
    Placement,
    WeightLoader,
    WeightPlan,
    WeightRule,
    WeightSink,
    WeightTable,
)
from rtp_core.bench.read_speed import evict
from rtp_core.bench.report import Report, Subject, device_words, num_threads
from rtp_core.bench.table import render
from rtp_core.config.environment import cache_dir
from rtp_core.config.schema import EngineConfig, ModelConfig
from rtp_core.engine.prepare import prepare
from rtp_core.loading.auto import AutoLoader
from rtp_core.loading.checkpoint import open_checkpoint
from rtp_core.loading.demo import resolve_model
from rtp_core.loading.file_order import FileOrderLoader
from rtp_core.loading.load import load_weights
from rtp_core.loading.mmap_loader import MmapLoader
from rtp_core.loading.order import by_file
from rtp_core.loading.plan import plan_weights
from rtp_core.testing.slow_mount import MAX_BACKGROUND, slow_mount, why_not
from rtp_core.testing.slow_storage import SlowFile, SlowLink

REQUEST_BYTES = 128 * 2**10
"""What the kernel asks a FUSE mount for at a time."""
MAPPED = "mmap, file order"
"""The rival that ratios are against: what most loaders do, at its best."""
Load = Callable[[Path], float]
"""Bytes of a model directory that were placed, as seconds it took."""


class OneMap:
    """Tensors copied out of a memory map one after the other, in the order of `placements`."""

    def __init__(self, placements: Callable[[WeightPlan], Iterable[Placement]]) -> None:
        self._placements = placements

    def load(
        self, plan: WeightPlan, sink: WeightSink, progress: Callable[[int], None]
    ) -> LoadStats:
        began = time.perf_counter()
        maps: dict[str, memoryview] = {}
        for placement in self._placements(plan):
            tensor = placement.tensor
            if tensor.file not in maps:
                with Path(tensor.file).open("rb") as file:
                    maps[tensor.file] = memoryview(
                        mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE)
                    )
            sink.place(
                placement, maps[tensor.file][tensor.offset : tensor.offset + tensor.num_bytes]
            )
            progress(tensor.num_bytes)
        return LoadStats("one map", plan.num_bytes, time.perf_counter() - began)


def in_file_order(plan: WeightPlan) -> Iterable[Placement]:
    return (one for placements in by_file(plan).values() for one in placements)


def in_model_order(plan: WeightPlan) -> Iterable[Placement]:
    return plan.placements


class Subjects:
    """The readers by name, each a function from a model directory to seconds."""

    def __init__(self, folder: Path) -> None:
        prepared = prepare(EngineConfig(ModelConfig(path=str(folder), device="cpu")))
        self._table = prepared.family.weights(prepared.spec)

    def ours(self, make: Callable[[], WeightLoader]) -> Load:
        def run(folder: Path) -> float:
            began = time.perf_counter()
            plan = plan_weights(self._table, open_checkpoint(folder))
            load_weights(plan, make(), "cpu", lambda _: None)
            return time.perf_counter() - began

        return run

    def mounted(self) -> dict[str, Load]:
        return {
            "auto": self.ours(AutoLoader),
            "file_order": self.ours(FileOrderLoader),
            "mmap, 4 threads": self.ours(MmapLoader),
            MAPPED: self.ours(lambda: OneMap(in_file_order)),
            "mmap, model order": self.ours(lambda: OneMap(in_model_order)),
            **self._transformers(),
        }

    def in_process(self, link: Callable[[], SlowLink]) -> dict[str, Load]:
        def opened() -> Any:
            return SlowFile.opener(link(), REQUEST_BYTES)

        def one_by_one(folder: Path) -> float:
            reader = FileOrderLoader(opened(), REQUEST_BYTES, 1)
            return self.ours(lambda: reader)(folder)

        return {
            "auto": self.ours(lambda: AutoLoader(opened(), lambda _: 0.0)),
            "file_order": self.ours(lambda: FileOrderLoader(opened())),
            MAPPED: one_by_one,
        }

    def _transformers(self) -> dict[str, Load]:
        try:
            import torch
            from transformers import AutoModelForCausalLM
            from transformers.utils import logging as chatter
        except ImportError:
            return {}
        chatter.disable_progress_bar()

        def run(folder: Path) -> float:
            began = time.perf_counter()
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
            for weight in model.parameters():  # it maps files and has read few of their pages
                weight.detach().view(-1)[:: mmap.PAGESIZE // weight.element_size()].sum()
            return time.perf_counter() - began

        return {"transformers": run}


def dense_copy(model: str) -> Path:
    """The model as bfloat16 safetensors under Hugging Face names, written once."""
    from safetensors.torch import save_file

    source = open_checkpoint(resolve_model(model, cache_dir()))
    if source.kind == "safetensors" and source.quantization is None:
        return source.root
    folder = cache_dir() / "bench" / f"bf16-{source.content_id}"
    if not (folder / "config.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        parameters = tuple(
            ParameterSpec(name, tensor.shape, "bfloat16") for name, tensor in source.tensors.items()
        )
        rules = tuple(WeightRule(one.name, one.name, 0, one.shape[0]) for one in parameters)
        plan = plan_weights(WeightTable(parameters, rules), source)
        found, _ = load_weights(plan, MmapLoader(), "cpu", lambda _: None)
        save_file(found, folder / "model.safetensors", {"format": "pt"})
        model_type = source.config["architectures"][0].removesuffix("ForCausalLM").lower()
        config = {"model_type": model_type, "dtype": "bfloat16", **source.config}
        (folder / "config.json").write_text(json.dumps(config, indent=1))
    return folder


@contextmanager
def local(folder: Path, *, cold: bool) -> Iterator[Path]:
    """The folder itself, out of the page cache or in it."""
    files = sorted(folder.glob("*.safetensors"))
    if cold:
        evict(files)
    else:
        for file in files:
            file.read_bytes()
    yield folder


def measure(
    subjects: dict[str, Load], place: Callable[[], Any], repeats: int, note: str
) -> dict[str, dict[str, Any]]:
    """Least seconds of each subject; they take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    counts: dict[str, Any] = {}
    for _ in range(repeats):
        for name, load in subjects.items():
            with place() as where:
                point = getattr(where, "point", where)
                seconds[name].append(load(point))
            if getattr(where, "counts", None):
                counts[name] = asdict(where.counts)
            sys.stderr.write(f"{note}: {name} {seconds[name][-1]:.2f} s\n")
    found = {}
    for name, times in seconds.items():
        row: dict[str, Any] = {"seconds": min(times), "times_as_fast_as_mmap": None}
        row["times_as_fast_as_mmap"] = min(seconds[MAPPED]) / min(times)
        found[name] = row | counts.get(name, {})
    return found


def with_limit(found: dict[str, dict[str, Any]], limit_s: float) -> dict[str, Any]:
    for row in found.values():
        row["fraction_of_limit"] = limit_s / row["seconds"]
    return {"limit_seconds": limit_s, **found}


def slow(folder: Path, options: argparse.Namespace, latency_ms: float) -> dict[str, Any]:
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    latency_s, bytes_per_s = latency_ms / 1e3, options.bandwidth * 1e6
    subjects, note = Subjects(folder), f"{latency_ms:g} ms"
    if why_not() is None:
        place = lambda: slow_mount(folder, latency_s, bytes_per_s)  # noqa: E731
        readers = chosen(subjects.mounted(), options.only)
    else:
        place = lambda: local(folder, cold=False)  # noqa: E731
        readers = subjects.in_process(lambda: SlowLink(latency_s, bytes_per_s))
    limit_s = SlowLink(latency_s, bytes_per_s).limit_s(size)
    return with_limit(measure(readers, place, options.repeats, note), limit_s)


def chosen(readers: dict[str, Load], only: Sequence[str]) -> dict[str, Load]:
    return {name: one for name, one in readers.items() if not only or name in (*only, MAPPED)}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", nargs="?", default="demo")
    parser.add_argument("--latency-ms", nargs="*", type=float, default=[5, 20], metavar="MS")
    parser.add_argument("--bandwidth", type=float, default=250, metavar="MB_PER_S")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], metavar="READER")
    parser.add_argument("--no-local", action="store_true", help="leave out local storage")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    logging.getLogger("rtp").setLevel(logging.WARNING)
    folder = dense_copy(options.model)
    emulation = f"FUSE, max_background {MAX_BACKGROUND}" if why_not() is None else "in process"
    if reason := why_not():
        sys.stderr.write(f"no mount ({reason}): the link is emulated in this process\n")
    params = {"bandwidth_mb_per_s": options.bandwidth, "storage": emulation}
    subject = Subject(options.model, device_words("cpu", num_threads(None)))
    report = Report("slow_storage", subject, params | {"repeats": options.repeats})
    for latency_ms in options.latency_ms:
        report.results[f"{latency_ms:g} ms a request"] = slow(folder, options, latency_ms)
    if not options.no_local:
        readers = chosen(Subjects(folder).mounted(), options.only)
        for name, cold in (("local, cold", True), ("local, in memory", False)):
            place = lambda cold=cold: local(folder, cold=cold)  # noqa: E731
            report.results[name] = measure(readers, place, options.repeats, name)
    found = report.as_json()
    sys.stdout.write(render(found))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
