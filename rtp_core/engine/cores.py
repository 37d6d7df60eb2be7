"""Cores this process may really use, whatever the machine has."""

from __future__ import annotations

import math
import os
from pathlib import Path

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
"""cgroup v2: "quota period" in microseconds, quota "max" for none."""


def usable_cores(cpu_max: Path = CPU_MAX) -> int:
    """The affinity mask, capped by the cgroup's quota; at least one.

    More threads than that wait for each other inside every operation.
    """
    cores = len(os.sched_getaffinity(0))
    quota = _quota(cpu_max)
    return cores if quota is None else max(1, min(cores, math.floor(quota)))


def _quota(cpu_max: Path) -> float | None:
    try:
        quota, period = cpu_max.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
