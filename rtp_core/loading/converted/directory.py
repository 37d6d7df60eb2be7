"""The directory that is written: beside its name first, under it only when it is whole."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rtp_core.errors import ConfigError, ModelError
from rtp_core.loading.converted.form import RECORD

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_OUT = "--out"


@dataclass(frozen=True, slots=True)
class Target:
    """`force` replaces what was converted before."""

    out: Path
    tensor_parallel_size: int = 1
    force: bool = False


def check_target(target: Target, source: Path) -> None:
    """Raises ConfigError for a target that must not be written."""
    out = target.out
    if not out.exists():
        return
    if out.resolve() in (source.resolve(), *source.resolve().parents):
        raise ConfigError(_OUT, f"{out} holds the model itself", remedy="choose another directory")
    if not out.is_dir():
        raise ConfigError(_OUT, f"{out} is a file", remedy="choose another name")
    if not any(out.iterdir()):
        return
    if not target.force:
        raise ConfigError(_OUT, f"{out} is not empty", remedy="choose another, or pass --force")
    if not (out / RECORD).is_file():
        raise ConfigError(
            _OUT, f"{out} holds something else than a converted model", remedy="empty it yourself"
        )


def _check_room(out: Path, num_bytes: int) -> None:
    """Before the first byte, as a full disk is known only at the end otherwise."""
    parent = out.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(parent).free
    if num_bytes > free:
        raise ModelError(
            f"{out} needs {num_bytes} bytes, its disk has {free} free",
            remedy="free some space there, or choose another directory",
        )


@contextmanager
def written(out: Path, num_bytes: int) -> Iterator[Path]:
    """A folder to fill with so many bytes; it becomes `out` at the end.

    It is removed when filling fails.

    What an interrupted conversion left is removed first. Raises ModelError for what the system
    says, with a remedy for a full disk.
    """
    out = out.absolute()
    scratch = out.with_name(f".{out.name}.partial")
    try:
        _check_room(out, num_bytes)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        yield scratch
        _put(scratch, out)
    except OSError as error:
        full = error.errno in _NO_ROOM
        what = "its disk is full" if full else f"{error.strerror or error}"
        raise ModelError(
            f"{out} cannot be written: {what}; nothing is left of it",
            remedy="free some space there and convert again" if full else None,
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _put(scratch: Path, out: Path) -> None:
    """What `out` held stays until the new one has its name."""
    for path in (*scratch.iterdir(), scratch):
        _sync(path)
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    scratch.rename(out)
    _sync(out.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
