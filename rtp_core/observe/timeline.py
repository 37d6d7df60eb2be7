"""Where the time from a process's start to its first answer went: phases end to end."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rtp_core.observe.log import line

_START_FIELD = 19
"""starttime of proc(5), counted behind the command's closing bracket."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One step on the way. `num_bytes` and `note` say what was moved and how, if anything.

    `began_s`, in the timeline's clock, is set for work that ran beside other phases.
    """

    name: str
    seconds: float
    num_bytes: int = 0
    note: str = ""
    began_s: float | None = None


@dataclass(frozen=True, slots=True)
class Timeline:
    """Phases from `began_s` on, which is monotonic time (one clock a machine).

    Without those that ran beside others there is neither gap nor overlap.
    """

    began_s: float = 0.0
    phases: tuple[Phase, ...] = ()

    @property
    def seconds(self) -> float:
        """Of all phases, those beside others left out."""
        return sum(phase.seconds for phase in self.phases if phase.began_s is None)

    @property
    def ended_s(self) -> float:
        """When the last phase was over."""
        return self.began_s + self.seconds

    def after(self, name: str, began_s: float) -> Timeline:
        """With a phase before the first; without phases there is nothing to precede."""
        if not self.phases:
            return self
        first = Phase(name, max(0.0, self.began_s - began_s))
        return Timeline(began_s, (first, *self.phases))

    def until(self, name: str, now_s: float) -> Timeline:
        """With a phase behind the last."""
        if not self.phases:
            return self
        last = Phase(name, max(0.0, now_s - self.ended_s))
        return replace(self, phases=(*self.phases, last))


def process_started_s() -> float:
    """Monotonic time at which the system started this process, to 10 ms; now if unknown."""
    now_s = time.monotonic()
    try:
        stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started_s = int(stat[_START_FIELD]) / os.sysconf("SC_CLK_TCK")
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - started_s
    except (OSError, ValueError, IndexError, AttributeError):
        return now_s
    return now_s - max(0.0, age_s)


def log_line(timeline: Timeline) -> str:
    """``start_timeline`` with seconds a phase, and how the weights came."""
    fields: dict[str, object] = {"total_s": timeline.seconds}
    for phase in timeline.phases:
        fields[f"{phase.name.replace('-', '_')}_s"] = phase.seconds
        if phase.num_bytes:
            fields[f"{phase.name}_bytes"] = phase.num_bytes
        if phase.note:
            fields[f"{phase.name}_by"] = phase.note
        if phase.began_s is not None:
            fields[f"{phase.name}_beside_from_s"] = phase.began_s - timeline.began_s
    return line("start_timeline", **fields)


def table(timeline: Timeline) -> str:
    """For people: one phase a line, with the sum so far; what ran beside has when it began."""
    rows = [f"{'phase':<12} {'seconds':>8} {'at':>8}"]
    at_s = 0.0
    for phase in timeline.phases:
        size = f"{phase.num_bytes / 1e6:.1f} MB" if phase.num_bytes else ""
        if phase.began_s is None:
            at_s += phase.seconds
            at, since = f"{at_s:8.3f}", ""
        else:
            at, since = " " * 8, f"beside, from {phase.began_s - timeline.began_s:.3f}"
        more = "  ".join(part for part in (size, phase.note, since) if part)
        rows.append(f"{phase.name:<12} {phase.seconds:8.3f} {at}  {more}".rstrip())
    return "\n".join(rows) + "\n"


def as_json(timeline: Timeline) -> Mapping[str, Any] | None:
    """For /v1/stats; None before there are phases."""
    if not timeline.phases:
        return None
    phases = [
        {
            "name": phase.name,
            "seconds": phase.seconds,
            "bytes": phase.num_bytes,
            "note": phase.note,
            "beside_from_s": None if phase.began_s is None else phase.began_s - timeline.began_s,
        }
        for phase in timeline.phases
    ]
    return {"total_s": timeline.seconds, "phases": phases}
