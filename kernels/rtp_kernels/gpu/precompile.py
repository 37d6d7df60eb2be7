"""Kernels compiled by several processes before they are first launched.

A dry run of the programs records what would be compiled and launches nothing; worker processes
compile it into Triton's cache on disk, where the real run finds it. A file in that cache
remembers that this was done, so that later starts need neither dry run nor workers; who empties
the cache removes it too.
"""

# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton import knobs
from triton.runtime import driver

from rtp_kernels.gpu.launch import holding_back

SHARE = 4
"""Kernels worth a process of its own: starting one takes as long as compiling a few."""


class Recorded(NamedTuple):
    """A kernel by module and name, the digest of its source, and how it is specialised."""

    module: str
    name: str
    source: str
    specialization: str


@contextlib.contextmanager
def dry_run() -> Iterator[list[Recorded]]:
    """Inside, no kernel is launched; the list tells which are not compiled yet."""
    with holding_back(), missing() as found:
        yield found


@contextlib.contextmanager
def missing() -> Iterator[list[Recorded]]:
    """Inside, kernels that are not compiled yet are not launched; the list tells which."""
    found: list[Recorded] = []

    def record(*, fn: Any, compile: dict[str, Any], **_: Any) -> bool:
        source = fn.jit_function.cache_key
        found.append(Recorded(fn.module, fn.name, source, compile["specialization_data"]))
        return True

    before = knobs.runtime.jit_cache_hook
    knobs.runtime.jit_cache_hook = record
    try:
        yield found
    finally:
        knobs.runtime.jit_cache_hook = before


def compile_all(recorded: Sequence[Recorded], most_processes: int) -> bool:
    """Compile what `dry_run` recorded, in parallel; whether all of it is compiled.

    A worker that fails is no error: its kernels are compiled when they are launched.
    """
    distinct = list(dict.fromkeys(recorded))
    if not distinct:
        return True
    number = max(1, min(most_processes, len(distinct) // SHARE))
    workers = [_start(distinct[first::number]) for first in range(number)]
    return all([worker.wait() == 0 for worker in workers])  # noqa: C419 - all are waited for


def known(key: str) -> bool:
    """Whether `remember` was called for `key` with these kernels, versions and device."""
    return _stamp(key).exists()


def remember(key: str) -> None:
    """All kernels of what `key` stands for are in Triton's cache."""
    stamp = _stamp(key)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.touch()


def _stamp(key: str) -> Path:
    versions = f"{triton.__version__} {torch.__version__} {_device()} {_sources()}"
    digest = hashlib.blake2b(f"{versions}\n{key}".encode(), digest_size=12).hexdigest()
    return Path(knobs.cache.dir) / f"rtp-kernels-{digest}"


def _device() -> str:
    return torch.cuda.get_device_name()


def _sources() -> str:
    """Which files kernels are made of, by size and time: sources and tables of configurations."""
    root = Path(__file__).parents[1]
    files = (one for one in sorted(root.rglob("*")) if one.suffix in (".py", ".json"))
    return " ".join(f"{(stat := one.stat()).st_size}:{stat.st_mtime_ns}" for one in files)


def _start(recorded: Sequence[Recorded]) -> subprocess.Popen[bytes]:
    worker = subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert worker.stdin is not None  # noqa: S101 - it was asked for
    worker.stdin.write(json.dumps([tuple(one) for one in recorded]).encode())
    worker.stdin.close()
    return worker


def work() -> None:
    """A worker: kernels from standard input into Triton's cache."""
    wanted = json.loads(sys.stdin.buffer.read())
    kernels = [
        getattr(import_module(module), name).preload(specialization)
        for module, name, _, specialization in wanted
    ]
    # What launches them may be C to be compiled too; it needs no context on the device.
    for kernel in kernels:
        driver.active.launcher_cls(kernel.src, kernel.metadata)


if __name__ == "__main__":
    work()
