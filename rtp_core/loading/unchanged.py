"""Files that are changed while they are loaded would give weights of neither version."""

from __future__ import annotations

import os
from pathlib import Path

from rtp_core.api import WeightPlan
from rtp_core.errors import WeightLoadError
from rtp_core.loading.objects.stand_in import is_stand_in

_REMEDY = "start again when whatever writes it has ended"


class Unchanged:
    """What the system says of a plan's files when loading begins, and again when it has ended.

    Objects of a store are left to the store, which knows their versions.
    """

    def __init__(self, plan: WeightPlan) -> None:
        """Raises WeightLoadError if a file is not what was planned, OSError if it is not there."""
        self._files = [file for file in plan.file_bytes if not is_stand_in(file)]
        self._before = {file: Path(file).stat() for file in self._files}
        for file in self._files:
            _compare_with_plan(file, plan, self._before[file])

    def verify(self) -> None:
        """Raises WeightLoadError naming a file that was written or replaced meanwhile."""
        for file in self._files:
            if _version(Path(file).stat()) != _version(self._before[file]):
                raise WeightLoadError("changed while it was read", file=file, remedy=_REMEDY)


def _compare_with_plan(file: str, plan: WeightPlan, found: os.stat_result) -> None:
    planned = plan.file_bytes[file]
    if found.st_size < planned:
        raise WeightLoadError(
            f"truncated from {planned} to {found.st_size} bytes since it was opened", file=file
        )
    if found.st_size > planned or plan.file_times.get(file, found.st_mtime_ns) != found.st_mtime_ns:
        raise WeightLoadError("changed since its header was read", file=file, remedy=_REMEDY)


def _version(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ino
