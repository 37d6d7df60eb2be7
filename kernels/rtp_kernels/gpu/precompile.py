"""Kernels compiled by several processes before they are first launched.

A dry run of the programs records what would be compiled and launches nothing; worker processes
compile it into Triton's cache on disk, where the real run finds it. One file a set of kernels
remembers that this was done, so that later starts ask nobody.
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
    """Inside, no kernel that is not compiled yet is launched; the list tells which they are."""
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


def index_memory(shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """int32 that a kernel fills and others take addresses from.

    Zero in a dry run: there those that are compiled may run without the one that fills it.
    """
    make = torch.empty if knobs.runtime.jit_cache_hook is None else torch.zeros
    return make(shape, dtype=torch.int32, device=device)


def compile_all(recorded: Sequence[Recorded], most_processes: int, remembered: Path) -> int:
    """Compile what `dry_run` recorded, in parallel; how many kernels. 0 if that was done before.

    A worker that fails is no error: its kernels are compiled when they are launched.
    """
    distinct = list(dict.fromkeys(recorded))
    stamp = remembered / f"kernels-{_digest(distinct)}"
    if not distinct or stamp.exists():
        return 0
    number = max(1, min(most_processes, len(distinct) // SHARE))
    workers = [_start(distinct[first::number]) for first in range(number)]
    if all([worker.wait() == 0 for worker in workers]):  # noqa: C419 - every one is waited for
        remembered.mkdir(parents=True, exist_ok=True)
        stamp.touch()
    return len(distinct)


def _digest(recorded: Sequence[Recorded]) -> str:
    described = json.dumps(sorted(recorded))
    versions = f"{triton.__version__} {torch.__version__} {torch.cuda.get_device_name()}"
    return hashlib.blake2b(f"{versions}\n{described}".encode(), digest_size=12).hexdigest()


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
    for module, name, _, specialization in json.loads(sys.stdin.buffer.read()):
        getattr(import_module(module), name).preload(specialization)


if __name__ == "__main__":
    work()
