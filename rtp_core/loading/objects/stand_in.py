"""Local files that stand for objects: they hold a header, the bytes behind it are elsewhere.

A file is one only in the process whose operator named the object; anywhere else it is a
truncated file, and refused as such. Nothing on disk can make this process ask a host.
"""

from __future__ import annotations

import os
from pathlib import Path

from rtp_core.loading.objects.store import ObjectFile
from rtp_core.loading.read_at import LocalFile, ReadAt

_OBJECTS: dict[str, ObjectFile] = {}


def remember(path: Path, file: ObjectFile) -> None:
    """From now on `path` stands for the object."""
    _OBJECTS[str(path)] = file


def is_stand_in(path: str | Path) -> bool:
    """Whether the bytes of a file are elsewhere."""
    return str(path) in _OBJECTS


def open_at(path: str) -> ReadAt:
    """The object that `path` stands for, or the file itself."""
    return _OBJECTS.get(path) or LocalFile(path)


def file_bytes(path: str | Path) -> int:
    """Size of the object or the file."""
    found = _OBJECTS.get(str(path))
    return found.info.num_bytes if found else Path(path).stat().st_size


def read_range(path: str, offset: int, num_bytes: int) -> bytes:
    """So many bytes, fewer at the end of a file; nothing is read ahead of them."""
    if not is_stand_in(path):
        with Path(path).open("rb", buffering=0) as file:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            return os.pread(file.fileno(), num_bytes, offset)
    return _OBJECTS[path].read_range(offset, num_bytes)
