"""How much of a file is in the page cache, by mincore(2) on a sample of its pages."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np

_WINDOWS = 64
_WINDOW_BYTES = 256 * mmap.PAGESIZE


def resident_fraction(path: Path) -> float | None:
    """Share of the pages in memory; None if the system does not tell.

    The kernel calls every page resident for a file that the caller may not write.
    """
    libc = ctypes.CDLL(None)
    size = path.stat().st_size
    if size == 0 or not hasattr(libc, "mincore") or not os.access(path, os.W_OK):
        return None
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE)
    start = np.frombuffer(mapped, dtype=np.uint8).ctypes.data
    found = 0
    counted = 0
    for at in _windows(size):
        length = min(_WINDOW_BYTES, size - at)
        pages = np.zeros(-(-length // mmap.PAGESIZE), dtype=np.uint8)
        where = ctypes.c_void_p(start + at), ctypes.c_size_t(length)
        if libc.mincore(*where, ctypes.c_void_p(pages.ctypes.data)):
            return None
        found += int((pages & 1).sum())
        counted += len(pages)
    return found / counted


def _windows(size: int) -> list[int]:
    """Starts of windows spread over a file, at whole pages; all of it if it is small."""
    if size <= _WINDOWS * _WINDOW_BYTES:
        return list(range(0, size, _WINDOW_BYTES))
    pages = (size - _WINDOW_BYTES) // mmap.PAGESIZE
    return [pages * number // (_WINDOWS - 1) * mmap.PAGESIZE for number in range(_WINDOWS)]
