"""Weights from an object store: our reader against the bandwidth that a server lets through.

    python bench/object_store.py [MODEL] [--latency-ms 20] [--bandwidth 250] [--repeats 3]

The server is a process of its own on the loopback interface; each request waits for its latency,
all share the bandwidth. Keep that below what two processes of Python can move here, which the
line ``no limit`` shows, or the server is measured. Times run from the address to parameters.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slow_storage import dense_copy

from rtp_core.api import WeightTable
from rtp_core.bench.report import Report, Subject, device_words, num_threads
from rtp_core.bench.table import render
from rtp_core.config.schema import EngineConfig, ModelConfig
from rtp_core.engine.prepare import prepare
from rtp_core.loading.auto import AutoLoader
from rtp_core.loading.checkpoint import open_checkpoint
from rtp_core.loading.load import load_weights
from rtp_core.loading.objects.fetch import object_model
from rtp_core.loading.objects.loader import SourceLoader
from rtp_core.loading.plan import plan_weights
from rtp_core.testing.range_server import range_server
from rtp_core.testing.slow_storage import SlowLink


def serve(folder: Path, latency_s: float, bytes_per_s: float, pipe: Any) -> None:
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with range_server(files, SlowLink(latency_s, bytes_per_s)) as server:
        pipe.send(server.url)
        pipe.recv()
        pipe.send(sum(server.requests.values()))


@contextmanager
def served(folder: Path, latency_s: float, bytes_per_s: float) -> Any:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(folder, latency_s, bytes_per_s, there))
    process.start()
    told: dict[str, Any] = {"url": here.recv()}
    try:
        yield told
    finally:
        here.send("end")
        told["requests"] = here.recv()
        process.join()


def load(url: str, table: WeightTable, cache: Path) -> dict[str, float]:
    began = time.perf_counter()
    checkpoint = open_checkpoint(object_model(url, cache))
    plan = plan_weights(table, checkpoint)
    _, stats = load_weights(plan, SourceLoader(AutoLoader()), "cpu", lambda _: None)
    return {"seconds": time.perf_counter() - began, "weights_seconds": stats.seconds}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", nargs="?", default="demo")
    parser.add_argument("--latency-ms", nargs="*", type=float, default=[20], metavar="MS")
    parser.add_argument("--bandwidth", type=float, default=250, metavar="MB_PER_S")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    for chatty in ("rtp", "httpx", "httpx2"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    folder = dense_copy(options.model)
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    prepared = prepare(EngineConfig(ModelConfig(path=str(folder), device="cpu")))
    table = prepared.family.weights(prepared.spec)
    params = {"bandwidth_mb_per_s": options.bandwidth, "repeats": options.repeats}
    subject = Subject(options.model, device_words("cpu", num_threads(None)))
    report = Report("object_store", subject, params)
    links = [
        (f"{ms:g} ms a request", ms / 1e3, options.bandwidth * 1e6) for ms in options.latency_ms
    ]
    for name, latency_s, bytes_per_s in [*links, ("no limit", 0.0, 1e12)]:
        best: dict[str, Any] = {}
        for _ in range(options.repeats):
            with (
                served(folder, latency_s, bytes_per_s) as told,
                tempfile.TemporaryDirectory() as cache,
            ):
                found = load(told["url"], table, Path(cache))
            if not best or found["seconds"] < best["seconds"]:
                best = found | {"requests": told["requests"]}
        limit_s = SlowLink(latency_s, bytes_per_s).limit_s(size)
        best["mb_per_s"] = size / best["seconds"] / 1e6
        best["weights_fraction_of_limit"] = limit_s / best["weights_seconds"]
        best["fraction_of_limit"] = limit_s / best["seconds"]
        report.results[name] = best
    found = report.as_json()
    sys.stdout.write(render(found))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
