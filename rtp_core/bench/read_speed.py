"""How fast the files of a model can be read at all."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rtp_core.config.environment import cache_dir
from rtp_core.engine.cores import usable_cores
from rtp_core.loading.checkpoint import open_checkpoint
from rtp_core.loading.demo import resolve_model

_READ_BYTES = 4 * 2**20


def weight_files(model: str) -> list[Path]:
    """The files that hold tensors."""
    checkpoint = open_checkpoint(resolve_model(model, cache_dir()))
    return sorted({Path(one.file) for one in checkpoint.tensors.values()})


def read_speed(files: Sequence[Path], *, cold: bool) -> float:
    """Bytes a second of plain reads, the best of passes with one thread and with all cores."""
    pieces = [
        (file, offset) for file in files for offset in range(0, file.stat().st_size, _READ_BYTES)
    ]
    total = sum(file.stat().st_size for file in files)
    return max(total / _read_all(files, pieces, num, cold=cold) for num in (1, 1, usable_cores()))


def evict(files: Sequence[Path]) -> None:
    """Put files out of the page cache, as far as nobody else has them mapped."""
    for file in files:
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read_all(
    files: Sequence[Path], pieces: Sequence[tuple[Path, int]], threads: int, *, cold: bool
) -> float:
    """Seconds of one pass."""
    if cold:
        evict(files)
    shares = [pieces[first::threads] for first in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        at = time.perf_counter()
        list(pool.map(_read, shares))
        return time.perf_counter() - at


def _read(pieces: Sequence[tuple[Path, int]]) -> None:
    """Into one buffer: fresh memory for every piece would cost more than the read."""
    buffer = bytearray(_READ_BYTES)
    for file, offset in pieces:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.preadv(descriptor, [buffer], offset)
        finally:
            os.close(descriptor)
