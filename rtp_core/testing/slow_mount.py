"""A folder mounted again through FUSE, behind a slow link, to measure loaders on.

    python -m rtp_core.testing.slow_mount SOURCE POINT LATENCY_S BYTES_PER_S COUNTS_FILE

A process of its own: a page fault on the mount holds the interpreter's lock of the process that
faults. The kernel admits `MAX_BACKGROUND` read-ahead requests of 128 KiB at a time; its default
of 12 would hide what a reader does with more. Needs mfusepy, libfuse and the right to mount.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from rtp_core.errors import ModelError
from rtp_core.testing.slow_storage import Counts, SlowLink

MAX_BACKGROUND = 64
_START_S = 20.0


def why_not() -> str | None:
    """Why nothing can be mounted here, or None."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse cannot be opened"
    try:
        _library()
    except ImportError:
        return "mfusepy is not installed (pip install 'rtp-core[bench]')"
    except OSError as error:
        return f"libfuse is not installed: {error} (apt-get install libfuse2)"
    return None


class Mount:
    """`point` shows the source; `counts` are those of the mount until it was given back."""

    def __init__(self, point: Path) -> None:
        self.point = point
        self.counts: Counts | None = None


@contextmanager
def slow_mount(source: Path, latency_s: float, bytes_per_s: float) -> Iterator[Mount]:
    """Mounted for the time of a `with`; no page of it is in memory when it begins.

    Raises ModelError with the reason when the system refuses the mount.
    """
    with tempfile.TemporaryDirectory(prefix="rtp-slow-") as scratch:
        mount, counts = Mount(Path(scratch) / "mount"), Path(scratch) / "counts.json"
        mount.point.mkdir()
        command = [
            sys.executable, "-m", "rtp_core.testing.slow_mount", str(source.resolve()),
            str(mount.point), str(latency_s), str(bytes_per_s), str(counts),
        ]  # fmt: skip
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            _await_mount(server, mount.point)
            yield mount
        finally:
            _unmount(mount.point)
            server.communicate(timeout=_START_S)
        mount.counts = Counts(**json.loads(counts.read_text()))


def _await_mount(server: subprocess.Popen[str], point: Path) -> None:
    deadline = time.monotonic() + _START_S
    while not point.is_mount():
        if server.poll() is not None or time.monotonic() > deadline:
            server.kill()
            said = (server.communicate()[1] or "no reason given").strip().splitlines()[-1]
            raise ModelError(f"{point} could not be mounted: {said}", remedy="see /dev/fuse")
        time.sleep(0.01)


def _unmount(point: Path) -> None:
    for command in (["fusermount", "-u", "-z"], ["umount", "-l"]):
        if not point.is_mount():
            return
        try:
            subprocess.run([*command, str(point)], check=False, capture_output=True)
        except FileNotFoundError:
            continue


def _library() -> ModuleType:
    import mfusepy  # pyright: ignore[reportMissingImports]

    return mfusepy


def _operations(source: str, link: SlowLink, counts: Path) -> Any:
    library = _library()

    class PassThrough(library.Operations):  # pyright: ignore[reportGeneralTypeIssues]
        """Reads wait for the link; names and sizes do not."""

        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            try:
                found = os.lstat(source + path)
            except OSError as error:
                raise library.FuseOSError(error.errno or errno.EIO) from error
            keys = ("st_mode", "st_size", "st_nlink", "st_uid", "st_gid", "st_mtime", "st_ctime")
            return {key: getattr(found, key) for key in keys}

        def readdir(self, path: str, fh: int) -> list[str]:
            return [".", "..", *(one.name for one in Path(source + path).iterdir())]

        def readlink(self, path: str) -> str:
            return str(Path(source + path).readlink())

        def open(self, path: str, flags: int) -> int:
            return os.open(source + path, os.O_RDONLY)

        def release(self, path: str, fh: int) -> int:
            os.close(fh)
            return 0

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            data = os.pread(fh, size, offset)
            link.wait(len(data))
            return data

        def destroy(self, path: str) -> None:
            counts.write_text(json.dumps(asdict(link.counts)))

    return PassThrough()


def _serve(source: str, point: str, latency_s: str, bytes_per_s: str, counts: str) -> None:
    link = SlowLink(float(latency_s), float(bytes_per_s))
    _library().FUSE(
        _operations(source, link, Path(counts)),
        point,
        foreground=True,
        ro=True,
        kernel_cache=True,  # pages stay for the next open, as on a real mount that is warm
        max_background=MAX_BACKGROUND,
    )


if __name__ == "__main__":
    _serve(*sys.argv[1:])
