"""`rtp doctor`: check the environment; every finding has a remedy."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from rtp_core.config.environment import cache_dir

_PACKAGES = ("torch", "tokenizers", "llguidance", "pluggy", "starlette", "uvicorn", "pyzmq")


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: `remedy` is set when it failed."""

    name: str
    detail: str
    remedy: str | None = None


def command(argv: Sequence[str]) -> int:
    """Exit status 1 if a check failed."""
    argparse.ArgumentParser(prog="rtp doctor", description="Check the environment.").parse_args(
        argv
    )
    findings = [check() for check in CHECKS]
    for finding in findings:
        mark = "ok  " if finding.remedy is None else "FAIL"
        sys.stdout.write(f"{mark} {finding.name:<10} {finding.detail}\n")
        if finding.remedy is not None:
            sys.stdout.write(f"     -> {finding.remedy}\n")
    return int(any(finding.remedy is not None for finding in findings))


def check_python() -> Finding:
    """3.11 or newer."""
    found = ".".join(map(str, sys.version_info[:3]))
    remedy = None if sys.version_info >= (3, 11) else "install Python 3.11 or newer"
    return Finding("python", found, remedy)


def check_packages() -> Finding:
    """All run-time packages are installed."""
    found, missing = [], []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    remedy = f"pip install {' '.join(missing)}" if missing else None
    return Finding("packages", ", ".join(found), remedy)


def check_threads() -> Finding:
    """Cores this process may use."""
    cores = len(os.sched_getaffinity(0))
    return Finding("cores", f"{cores} usable")


def check_memory() -> Finding:
    """At least 1 GiB available for the demo model."""
    from rtp_core.engine.capacity import available_bytes

    free = available_bytes()
    remedy = None if free >= 2**30 else "free some memory: the demo model needs 1 GiB"
    return Finding("memory", f"{free / 2**30:.1f} GiB available", remedy)


def check_cache() -> Finding:
    """The cache directory can be written."""
    directory = cache_dir()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        writable = os.access(directory, os.W_OK)
    except OSError:
        writable = False
    remedy = None if writable else "set XDG_CACHE_HOME to a directory you can write"
    return Finding("cache", str(directory), remedy)


def check_device() -> Finding:
    """One matrix product on the device that would be used."""
    try:
        import torch
    except ImportError:
        return Finding("device", "torch is missing", "pip install torch")
    from rtp_core.engine.devices import pick_device, unusable_gpu

    device = pick_device("auto")
    ones = torch.ones(8, 8, dtype=torch.bfloat16, device=device)
    right = bool((ones @ ones == 8).all())
    remedy = None if right else f"reinstall torch: a bfloat16 product is wrong on this {device}"
    name = torch.cuda.get_device_name() if device == "cuda" else f"cpu ({unusable_gpu()})"
    return Finding("device", f"{name}, torch {torch.__version__}", remedy)


def check_plugins() -> Finding:
    """Every installed manifest can be read."""
    from rtp_core.plugins.discover import discover
    from rtp_core.plugins.listing import list_plugins

    rows = list_plugins(discover(), None)
    broken = [row for row in rows if row.get("broken")]
    remedy = "; ".join(f"{row['name']}: {row['broken']}" for row in broken) or None
    return Finding("plugins", f"{len(rows)} installed", remedy)


CHECKS: tuple[Callable[[], Finding], ...] = (
    check_python,
    check_packages,
    check_threads,
    check_memory,
    check_cache,
    check_device,
    check_plugins,
)
