"""The one JSON object every benchmark writes: what was measured, of what, where, and how busy."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtp_core import __version__
from rtp_core.config.environment import process_environment
from rtp_core.engine.cores import usable_cores
from rtp_core.engine.devices import pick_device

if TYPE_CHECKING:
    from rtp_core.bench.traffic import Traffic

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Subject:
    """`model` as it was named; `device` in words, ``remote`` if it is another machine's."""

    model: str
    device: str


class Report:
    """Collects while a measurement runs; `as_json` may be called at any time.

    `traffic` has the requests one by one, where there were any.
    """

    def __init__(self, command: str, subject: Subject, params: Mapping[str, Any]) -> None:
        self.results: dict[str, Any] = {}
        self.beside: dict[str, Any] = {}
        self.traffic: Traffic | None = None
        self.interrupted = False
        self._command = command
        self._subject = subject
        self._params = dict(params)
        self._began = time.time()
        self._load_before = load_average()

    def as_json(self) -> dict[str, Any]:
        """Schema 1. `results` hold what was measured until now, `beside` other tools' keys."""
        return {
            "schema": SCHEMA,
            "command": self._command,
            "version": __version__,
            "device": self._subject.device,
            "torch": _version("torch"),
            "model": self._subject.model,
            "params": self._params,
            "results": self.results,
            "interrupted": self.interrupted,
            "machine": machine(),
            "load_average": {"before": self._load_before, "after": load_average()},
            **self.beside,
            "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._began)),
        }


def machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, Any]:
    """Processor, cores and versions of the machine that measures."""
    return {
        "cpu": processor_name(cpuinfo),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The model name Linux gives, else the architecture."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def load_average() -> float:
    """Of the last minute: runnable processes, 0 on an idle machine."""
    return round(os.getloadavg()[0], 2)


def device_words(setting: str, num_threads: int) -> str:
    """The words for the device that ``model.device`` means here."""
    if pick_device(setting) == "cuda":
        import torch

        return f"cuda, {torch.cuda.get_device_name()}"
    return f"cpu, {num_threads} threads, {processor_name()}"


def num_threads(asked: int | None) -> int:
    """Threads that a server started with `asked` computes with."""
    given = process_environment().get("OMP_NUM_THREADS", "")
    return asked or min(int(given) if given.isdigit() else usable_cores(), usable_cores())


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
