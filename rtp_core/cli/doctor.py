"""`rtp doctor`: check the environment and the configuration; every finding has a remedy."""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rtp_core.cli.origins import places_of
from rtp_core.cli.requirements import missing, run_time, versions
from rtp_core.config.environment import cache_dir, process_environment, stray_settings
from rtp_core.config.flags import WORKING_FILE
from rtp_core.config.read import load_config
from rtp_core.config.schema import EngineConfig
from rtp_core.errors import ConfigError, RtpError

_ROOM = 2**30
_TOLD = ("torch", "triton", "tokenizers", "llguidance", "starlette", "uvicorn", "pyzmq")


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: `remedy` is set when it failed."""

    name: str
    detail: str
    remedy: str | None = None


def command(argv: Sequence[str]) -> int:
    """Exit status 1 if a check failed."""
    parser = argparse.ArgumentParser(
        prog="rtp doctor",
        description="Check this machine, the packages and the configuration a server would have.",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML file; without it ./rtp.toml, if there"
    )
    file = parser.parse_args(argv).config or (WORKING_FILE if WORKING_FILE.is_file() else None)
    config, configured = check_configuration(file)
    findings = [configured, *(_attempt(check, config) for check in CHECKS)]
    for finding in findings:
        mark = "ok  " if finding.remedy is None else "FAIL"
        sys.stdout.write(f"{mark} {finding.name:<10} {finding.detail}\n")
        if finding.remedy is not None:
            sys.stdout.write(f"     -> {finding.remedy}\n")
    return int(any(finding.remedy is not None for finding in findings))


def check_configuration(file: Path | None) -> tuple[EngineConfig, Finding]:
    """File and variables are valid; without that the other checks look at the defaults."""
    try:
        config = load_config(file=file)
    except RtpError as error:
        broken = Finding("config", error.message, error.remedy or "mend it")
        return EngineConfig(), broken
    told = [f"{len(config.origins)} given"]
    if file is not None:
        told.append(f"{file} is read")
    if stray := stray_settings(process_environment()):
        told.append(f"not settings, as they have no __: {', '.join(stray)}")
    return config, Finding("config", ", ".join(told))


def check_python(config: EngineConfig) -> Finding:
    """3.11 or newer."""
    found = ".".join(map(str, sys.version_info[:3]))
    remedy = None if sys.version_info >= (3, 11) else "install Python 3.11 or newer"
    return Finding("python", found, remedy)


def check_packages(config: EngineConfig) -> Finding:
    """Everything rtp-core requires is installed, new enough."""
    requirements = run_time("rtp-core")
    if not requirements:
        return Finding("packages", "not known: rtp-core runs from its sources")
    lacking = missing(requirements)
    remedy = f"pip install {' '.join(repr(one) for one in lacking)}" if lacking else None
    found = f"{len(requirements) - len(lacking)} of {len(requirements)}"
    return Finding("packages", ", ".join([found, *versions(_TOLD)]), remedy)


def check_threads(config: EngineConfig) -> Finding:
    """Cores this process may use."""
    cores = len(os.sched_getaffinity(0))
    given = process_environment().get("OMP_NUM_THREADS")
    return Finding("cores", f"{cores} usable" + (f", OMP_NUM_THREADS={given}" if given else ""))


def check_memory(config: EngineConfig) -> Finding:
    """At least 1 GiB available for the demo model."""
    from rtp_core.engine.capacity import available_bytes

    free = available_bytes()
    remedy = None if free >= _ROOM else "free some memory: the demo model needs 1 GiB"
    return Finding("memory", f"{free / 2**30:.1f} GiB available", remedy)


def check_cache(config: EngineConfig) -> Finding:
    """The cache directory can be written and has room."""
    directory = cache_dir()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(directory).free
        writable = os.access(directory, os.W_OK)
    except OSError:
        free, writable = 0, False
    if not writable:
        return Finding("cache", str(directory), "set RTP_CACHE_DIR to a directory you can write")
    remedy = None if free >= _ROOM else "free 1 GiB there, or set RTP_CACHE_DIR to another disk"
    return Finding("cache", f"{directory}, {free / 2**30:.1f} GiB free", remedy)


def check_device(config: EngineConfig) -> Finding:
    """One matrix product on the device that would be used."""
    from rtp_core.engine.devices import pick_device, unusable_gpu

    device = pick_device(config.model.device)
    import torch

    ones = torch.ones(8, 8, dtype=torch.bfloat16, device=device)
    right = bool((ones @ ones == 8).all())
    remedy = None if right else f"reinstall torch: a bfloat16 product is wrong on this {device}"
    name = torch.cuda.get_device_name() if device == "cuda" else f"cpu ({unusable_gpu()})"
    return Finding("device", f"{name}, torch {torch.__version__}", remedy)


def check_kernels(config: EngineConfig) -> Finding:
    """Which operations serve; the torch forms do where nothing faster works."""
    from rtp_core.engine.cpu_weights import kernel_form
    from rtp_core.engine.devices import pick_device

    dtype = "float32" if config.model.dtype == "float32" else "bfloat16"
    form, reason = kernel_form(dtype, pick_device(config.model.device))
    return Finding("kernels", f"{form} ({reason})")


def check_plugins(config: EngineConfig) -> Finding:
    """Every installed manifest can be read, and every part that is asked for is installed."""
    from rtp_core.plugins.discover import discover
    from rtp_core.plugins.host import PluginHost
    from rtp_core.plugins.listing import list_plugins
    from rtp_core.plugins.resolve import resolve
    from rtp_core.plugins.wants import configured

    manifests = discover()
    rows = list_plugins(manifests, None)
    broken = [row for row in rows if row.get("broken")]
    if broken:
        told = "; ".join(f"{row['name']}: {row['broken']}" for row in broken)
        return Finding("plugins", f"{len(rows)} installed", told)
    devices = frozenset({"device:cpu", "device:cuda"})
    resolution = resolve(configured(config), manifests, devices)
    PluginHost(manifests, config.plugins).load(resolution)
    return Finding("plugins", f"{len(rows)} installed, {len(resolution.plugins)} asked for")


def check_server(config: EngineConfig) -> Finding:
    """Certificate, prefix and formats of answers can be used, and the address can be had."""
    from rtp_core.server.answer_formats import check_names
    from rtp_core.server.listener import bind, check_tls
    from rtp_core.server.root_path import check_root_path

    check_tls(config.server)
    check_root_path(config.server)
    check_names(config)
    address = f"{config.server.host} port {config.server.port}"
    try:
        with bind(config.server):
            return Finding("server", f"{address} is free")
    except ConfigError as error:
        if getattr(error.__cause__, "errno", None) != errno.EADDRINUSE:
            raise
        return Finding("server", f"{address} is taken, by a server that runs? --port N is another")


def _attempt(check: Callable[[EngineConfig], Finding], config: EngineConfig) -> Finding:
    """What a check raises is its finding: one that fails must not hide the others."""
    name = check.__name__.removeprefix("check_")
    try:
        return check(config)
    except RtpError as error:
        told = "; ".join([error.message, *places_of(error, config)])
        return Finding(name, told, error.remedy or "mend it")
    except ImportError as error:
        return Finding(name, str(error), "pip install --force-reinstall what cannot be imported")
    except (OSError, RuntimeError) as error:
        return Finding(name, f"{type(error).__name__}: {error}", "mend or reinstall what failed")


CHECKS: tuple[Callable[[EngineConfig], Finding], ...] = (
    check_python,
    check_packages,
    check_threads,
    check_memory,
    check_cache,
    check_device,
    check_kernels,
    check_plugins,
    check_server,
)
