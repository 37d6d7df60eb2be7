"""Row bounds measured on this machine, kept between starts.

Where products by codes and dense ones cross depends on the processor, on torch, on the compiled
library and on the number of threads, so a file holds one combination of these.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

import torch

from rtp_kernels.compiled import PACKAGE

log = logging.getLogger("rtp.engine")
CPU_INFO = Path("/proc/cpuinfo")
_TELLING = ("model name", "flags", "Features", "CPU part")


class MeasuredBounds(dict[str, int]):
    """Bounds by kind of weight. Read when made, written by `save` if something was added."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._file = folder / f"row-bounds-{machine_id()}.json"
        self.update(_read(self._file))
        self._known = dict(self)

    def save(self) -> None:
        """For the next start; a cache that cannot be written only costs time."""
        if self == self._known:
            return
        scratch = self._file.with_name(f"{self._file.name}.{uuid4().hex[:8]}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(json.dumps(self, indent=1, sort_keys=True))
            scratch.replace(self._file)
        except OSError as error:
            log.debug("bounds_not_saved error=%r", str(error))


def machine_id(cpu_info: Path = CPU_INFO) -> str:
    """Changes with whatever changes the bounds."""
    parts = [platform.machine(), torch.__version__, str(torch.get_num_threads())]
    parts += sorted({line for line in _lines(cpu_info) if line.startswith(_TELLING)})
    parts += [f"{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in _library()]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()


def _library() -> list[Path]:
    spec = find_spec(PACKAGE)
    folders = (spec.submodule_search_locations if spec else None) or ()
    return [file for folder in folders for file in sorted(Path(folder).glob("*.so"))]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _read(file: Path) -> dict[str, int]:
    """What a file says, as far as it is what `save` writes."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {key: rows for key, rows in content.items() if type(rows) is int and 0 <= rows <= 2**16}
