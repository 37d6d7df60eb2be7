"""Weights from files to a GPU: against a pinned copy when cached, against the disk when not.

    python bench/gpu_load.py FOLDER [--gb 16.4] [--json FILE] [--device cuda]

Random safetensors of the Qwen3-8B shape are written to FOLDER, unless they are there, and loaded
by the loaders that `auto` takes: from the page cache, whose aim is 60 % of the rate of copies out
of pinned memory, and after it was emptied, whose aim is 90 % of direct reads of the same files.
Bytes on the device are compared with the files. A tokenizer lies beside them, so that
`rtp bench load FOLDER` can time whole starts. Needs torch, numpy and what rtp_core imports;
takes two minutes at most on a disk of 1 GB/s or more. `--device cpu --gb 0.3` tries the script.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu.tokenizer import write_tokenizer
from gpu.work import QWEN3_8B

from rtp_core import __version__
from rtp_core.api import ParameterSpec, Placement, TensorInfo, WeightPlan, WeightRule
from rtp_core.bench.read_speed import evict
from rtp_core.loading.auto import AutoLoader
from rtp_core.loading.checkpoint import open_checkpoint
from rtp_core.loading.direct_file import DirectFile
from rtp_core.loading.file_order import STALL_S
from rtp_core.loading.load import load_weights
from rtp_core.loading.mmap_loader import MmapLoader
from rtp_core.loading.plan import plan_weights
from rtp_core.loading.residency import resident_fraction
from rtp_core.loading.sink import allocate
from rtp_core.loading.storage import DIRECT_TO_DEVICE, TO_DEVICE, How, Stream
from rtp_core.loading.transfer import HostTransfer, Transfer, give_back_buffers, transfers_to
from rtp_core.models.qwen import Qwen3Family

SHARD_BYTES = 4_500_000_000
MIB = 2**20
SWEEP = [(4, 16), (4, 32), (8, 8), (8, 32), (16, 16)]
"""MiB of a read, reads under way."""
DISK_BYTES = 8 * 2**30
WARM_AIM, COLD_AIM = 0.6, 0.9


def shape_of(gb: float) -> dict[str, Any]:
    """As many layers as make so many GB; below three, a smaller vocabulary."""
    shape = QWEN3_8B | {"num_hidden_layers": max(1, round((gb - 2.49) / 0.386))}
    if gb < 3:
        shape["vocab_size"] = max(64, int(151936 * max(0.0, gb - 0.386) / 2.6) // 64 * 64)
    return shape


def write_model(folder: Path, shape: dict[str, Any]) -> None:
    """Shards side by side, from one pool of random weights that no tensor begins alike."""
    family = Qwen3Family()
    table = family.weights(family.spec(shape, "bfloat16", "bench"))
    columns = {one.name: one.shape[1:] for one in table.parameters}
    shards: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    room = SHARD_BYTES
    for rule in table.rules:
        one = (rule.source, (rule.num_rows, *columns[rule.destination]))
        size = 2 * int(np.prod(one[1]))
        if size > room and shards[-1]:
            shards.append([])
            room = SHARD_BYTES
        shards[-1].append(one)
        room -= size
    pool = torch.randn(2**25, generator=torch.Generator().manual_seed(0)).mul_(0.02).bfloat16()
    data = pool.view(torch.uint8).numpy().data
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"model-{n + 1:05d}-of-{len(shards):05d}.safetensors" for n in range(len(shards))]
    with ThreadPoolExecutor(8) as threads:
        jobs = [
            threads.submit(write_shard, folder / name, shard, data)
            for name, shard in zip(names, shards, strict=True)
        ]
        for job in jobs:
            job.result()
    write_tokenizer(folder, shape["vocab_size"])
    (folder / "config.json").write_text(json.dumps(shape))


def write_shard(path: Path, tensors: list[tuple[str, tuple[int, ...]]], pool: memoryview) -> None:
    header, at = {}, 0
    for name, shape in tensors:
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb", buffering=0) as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for number, entry in enumerate(header.values()):
            left = entry["data_offsets"][1] - entry["data_offsets"][0]
            begin = 2 * (number * 7919 % 2**20)
            while left:
                left -= file.write(pool[begin : begin + min(left, len(pool) - begin)])
                begin = 0


@dataclass
class Bench:
    """The model, where it goes, and what was found."""

    plan: WeightPlan
    device: str
    report: dict[str, Any]

    def __post_init__(self) -> None:
        self.into = allocate(self.plan, self.device)
        self.files = [Path(file) for file in self.plan.file_bytes]
        self.num_bytes = self.plan.num_bytes

    def transfer(self) -> Transfer:
        return transfers_to(self.device)()

    def pinned_rate(self) -> float:
        """Bytes a second of copies of 64 MiB out of pinned memory, the best of five passes."""
        transfer = self.transfer()
        buffers = [transfer.buffer(64 * MIB) for _ in range(4)]
        target = torch.empty(4, 64 * MIB, dtype=torch.uint8, device=self.device)

        def once() -> None:
            for _ in range(8):
                for row, buffer in zip(target, buffers, strict=True):
                    transfer.submit(lambda row=row, buffer=buffer: row.copy_(buffer, True))
            wait(transfer)

        once()
        return 32 * 64 * MIB / min(timed(once) for _ in range(5))

    def disk_rate(self) -> float:
        """Bytes a second of direct reads as the loader makes them, of the first files."""
        stream = DIRECT_TO_DEVICE
        pieces: list[tuple[Path, int]] = []
        for file in self.files:
            pieces += [(file, at) for at in range(0, file.stat().st_size, stream.read_bytes)]
        pieces = pieces[: DISK_BYTES // stream.read_bytes]
        opened = {file: DirectFile.open(str(file)) for file in self.files}
        self.report["direct reads"] = all(one.is_direct for one in opened.values())
        evict(self.files)

        def read(first: int) -> int:
            buffer = HostTransfer().buffer(stream.read_bytes).numpy().data
            return sum(
                opened[file].read_into(at, buffer) for file, at in pieces[first :: stream.in_flight]
            )

        began = time.perf_counter()
        with ThreadPoolExecutor(stream.in_flight) as threads:
            num_bytes = sum(threads.map(read, range(stream.in_flight)))
        return num_bytes / (time.perf_counter() - began)

    def load(self, stream: Stream) -> dict[str, float]:
        """One load into the same destinations, by fresh pinned memory."""
        if self.device != "cpu":
            give_back_buffers(self.device)
            torch.cuda.reset_peak_host_memory_stats()
        for one in self.into.values():
            one.zero_()
        synchronize(self.device)
        began = time.perf_counter()
        steps: list[int] = []
        _, stats = load_weights(
            self.plan, stream.loader(STALL_S), self.device, steps.append, into=self.into
        )
        synchronize(self.device)
        seconds = time.perf_counter() - began
        assert sum(steps) == self.num_bytes, "progress does not add up"
        self.compare()
        return {
            "seconds": seconds,
            "bytes_per_s": self.num_bytes / seconds,
            "read_over_file": stats.bytes_read / sum(self.plan.file_bytes.values()),
            "ring_bytes": stats.peak_bytes,
            "peak_pinned_bytes": peak_pinned(self.device),
        }

    def compare(self) -> None:
        """Some tensors with their bytes in the files, at the ends of files too."""
        chosen = self.plan.placements[:: max(1, len(self.plan.placements) // 12)]
        for one in (*chosen, self.plan.placements[-1]):
            first = one.rule.row_offset
            rows = self.into[one.rule.destination][first : first + one.rule.num_rows]
            found = rows.reshape(-1).view(torch.uint8).cpu().numpy()
            size, offset = one.tensor.num_bytes, one.tensor.offset
            file = np.memmap(one.tensor.file, np.uint8, "r", offset, size)
            assert np.array_equal(found, file), f"{one.tensor.name} differs from its file"

    def cached(self) -> None:
        """Read all files, so that they are in memory."""
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(touch, self.files))

    def warm(self, repeats: int) -> None:
        self.cached()
        shares = [resident_fraction(file) for file in self.files]
        self.report["pages in memory"] = shares
        runs = [self.load(TO_DEVICE) for _ in range(repeats)]
        best = min(runs, key=lambda run: run["seconds"])
        fraction = best["bytes_per_s"] / self.report["pinned_bytes_per_s"]
        self.report["warm"] = best | {"of_pinned": fraction, "aim": WARM_AIM, "runs": runs}
        told("warm", self.report["warm"])

    def sweep(self, deadline: float) -> None:
        found = self.report["sweep"] = {}
        for read_mib, in_flight in SWEEP:
            if time.monotonic() > deadline:
                return
            self.cached()
            run = self.load(Stream(read_mib * MIB, in_flight))
            fraction = run["bytes_per_s"] / self.report["pinned_bytes_per_s"]
            found[f"{read_mib} MiB x {in_flight}"] = run | {"of_pinned": fraction}
            told(f"sweep {read_mib} MiB x {in_flight}", found[f"{read_mib} MiB x {in_flight}"])

    def cold(self, deadline: float) -> None:
        streams = [DIRECT_TO_DEVICE, TO_DEVICE, Stream(8 * MIB, 16, How.ADVISED)]
        for stream in streams:
            if time.monotonic() > deadline:
                return
            evict(self.files)
            held = [resident_fraction(file) for file in self.files]
            run = self.load(stream) | {"aim": COLD_AIM}
            run["of_disk"] = run["bytes_per_s"] / self.report["disk_bytes_per_s"]
            self.report[f"cold {stream.how}"] = run | {"pages in memory": held}
            told(f"cold {stream.how}", run)


def transforms(folder: Path, device: str) -> list[str]:
    """Tensors that are converted on the way, on the device and on the CPU: names that differ."""
    source = torch.randn(512, 2048, generator=torch.Generator().manual_seed(1))
    path = folder / "transforms.bin"
    stored = {"F32": source, "F16": source.half(), "BF16": source.bfloat16()}
    kinds = {kind: one.view(torch.uint8).numpy().tobytes() for kind, one in stored.items()}
    blocks = np.frombuffer(np.random.default_rng(0).bytes(512 * 64 * 34), np.uint8).copy()
    blocks.reshape(-1, 34)[:, :2] = np.frombuffer(np.float16(0.01).tobytes(), np.uint8)
    kinds["Q8_0"] = blocks.tobytes()
    placements, parameters, at = [], [], 0
    with path.open("wb") as file:
        for kind, data in kinds.items():
            for heads in (0, 4):
                name = f"{kind} {heads}"
                tensor = TensorInfo(name, str(path), at, len(data), (512, 2048), kind, heads)
                placements.append(Placement(tensor, WeightRule(name, name, 0, 512)))
                parameters.append(ParameterSpec(name, (512, 2048), "bfloat16"))
                at += file.write(data)
    plan = WeightPlan(tuple(parameters), tuple(placements), {str(path): at})
    wanted, _ = load_weights(plan, MmapLoader(), "cpu", lambda _: None)
    found, _ = load_weights(plan, TO_DEVICE.loader(STALL_S), device, lambda _: None)
    path.unlink()
    return [name for name in wanted if not torch.equal(wanted[name], found[name].cpu())]


def touch(path: Path) -> None:
    buffer = bytearray(16 * MIB)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def wait(transfer: Transfer) -> None:
    if (fence := transfer.fence()) is not None:
        fence()


def timed(run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def peak_pinned(device: str) -> int:
    if device == "cpu":
        return 0
    return int(torch.cuda.host_memory_stats().get("allocated_bytes.peak", 0))


def told(name: str, found: dict[str, Any]) -> None:
    numbers: Iterable[tuple[str, Any]] = (
        (key, value) for key, value in found.items() if isinstance(value, int | float)
    )
    print(name, " ".join(f"{key} {value:.4g}" for key, value in numbers), flush=True)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gb", type=float, default=16.4)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=120, help="begin nothing new after these")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> int:
    flags = parsed()
    deadline = time.monotonic() + flags.seconds * 0.8
    shape = shape_of(flags.gb)
    config = flags.folder / "config.json"
    report: dict[str, Any] = {"version": __version__, "torch": torch.__version__}
    report["card"] = torch.cuda.get_device_name() if flags.device != "cpu" else "none"
    began = time.perf_counter()
    if not config.is_file() or json.loads(config.read_text()) != shape:
        write_model(flags.folder, shape)
    report["write_seconds"] = time.perf_counter() - began
    family = Qwen3Family()
    table = family.weights(family.spec(shape, "bfloat16", "bench"))
    began = time.perf_counter()
    plan = plan_weights(table, open_checkpoint(flags.folder))
    report["plan_seconds"] = time.perf_counter() - began
    report["transforms that differ"] = transforms(flags.folder, flags.device)
    bench = Bench(plan, flags.device, report)
    report |= {"bytes": plan.num_bytes, "pinned_bytes_per_s": bench.pinned_rate()}
    told(
        "pinned", {"bytes_per_s": report["pinned_bytes_per_s"], "write_s": report["write_seconds"]}
    )
    bench.warm(flags.repeats)
    report["disk_bytes_per_s"] = bench.disk_rate()
    told("disk", {"bytes_per_s": report["disk_bytes_per_s"], "direct": report["direct reads"]})
    probe = AutoLoader(device=flags.device).probe(plan.file_bytes)
    report["auto, cold"] = f"{probe.choice(flags.device)}: {probe.reason(flags.device)}"
    bench.cold(deadline)
    bench.sweep(deadline)
    if flags.json is not None:
        flags.json.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({key: report[key] for key in ("transforms that differ", "auto, cold")}))
    return 1 if report["transforms that differ"] else 0


if __name__ == "__main__":
    sys.exit(main())
