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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import triton
from triton import knobs

from rtp_kernels.gpu import tuned
from rtp_kernels.gpu.launch import holding_back
from rtp_kernels.gpu.workers import Recorded, Workers


def compile_all(run: Callable[[], object], processes: int) -> tuple[int, bool]:
    """Compile what `run` needs while it runs dry; how many kernels, and whether all of them are."""
    with Workers(processes) as workers, holding_back(), missing(workers.put):
        run()
    return workers.count, workers.complete


@contextlib.contextmanager
def missing(tell: Callable[[Recorded], object]) -> Iterator[None]:
    """Inside, kernels that are not compiled yet are not launched but told, each time."""

    def record(*, fn: Any, compile: dict[str, Any], **_: Any) -> bool:
        source = fn.jit_function.cache_key
        tell(Recorded(fn.module, fn.name, source, compile["specialization_data"]))
        return True

    before = knobs.runtime.jit_cache_hook
    knobs.runtime.jit_cache_hook = record
    try:
        yield
    finally:
        knobs.runtime.jit_cache_hook = before


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
    versions += f" {tuned.digest()}"
    digest = hashlib.blake2b(f"{versions}\n{key}".encode(), digest_size=12).hexdigest()
    return Path(knobs.cache.dir) / f"rtp-kernels-{digest}"


def _device() -> str:
    return torch.cuda.get_device_name()


def _sources() -> str:
    """Which files kernels are made of, by size and time: sources and tables of configurations."""
    root = Path(__file__).parents[1]
    files = (one for one in sorted(root.rglob("*")) if one.suffix in (".py", ".json"))
    return " ".join(f"{(stat := one.stat()).st_size}:{stat.st_mtime_ns}" for one in files)
