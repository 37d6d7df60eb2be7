"""Compiles `native/` into `rtp_kernels_cpu/native.so` when a wheel or editable install is made.

Only the baseline of the processor family is assumed; the library chooses its instruction set
when it runs. ``python hatch_build.py`` compiles in place, for work on the sources.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
LIBRARY = ROOT / "rtp_kernels_cpu" / "native.so"
COMPILERS = ("c++", "g++", "clang++")
FLAGS = (
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-pthread",
    "-fvisibility=hidden",
    "-ffp-contract=off",  # all instruction sets compute the same bits
    "-fno-math-errno",
)


class CustomBuildHook(BuildHookInterface):
    """Adds the library to the wheel and ties the wheel to the platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it collects files."""
        del version
        compile_library()
        build_data["artifacts"].append(str(LIBRARY.relative_to(ROOT)))
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"


def compile_library() -> Path:
    """Compile every source, link, and put the library in place. Raises RuntimeError."""
    compiler = find_compiler()
    sources = sorted((ROOT / "native").glob("*.cpp"))
    with TemporaryDirectory() as scratch:
        objects = [str(Path(scratch) / f"{source.stem}.o") for source in sources]
        commands = [
            [*compiler, *FLAGS, "-c", str(source), "-o", target]
            for source, target in zip(sources, objects, strict=True)
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(run, commands))
        fresh = Path(scratch) / LIBRARY.name
        run([*compiler, "-shared", "-pthread", *objects, "-o", str(fresh)])
        # A running process keeps the file it has mapped: replace, never overwrite.
        beside = LIBRARY.with_suffix(f".{os.getpid()}")
        shutil.copy(fresh, beside)
        beside.replace(LIBRARY)
    return LIBRARY


def find_compiler() -> list[str]:
    """The command of a C++ compiler: CXX if set, else the first installed."""
    named = os.environ.get("CXX")  # noqa: TID251 - the build's environment, not the engine's
    if named:
        return named.split()
    for name in COMPILERS:
        if found := shutil.which(name):
            return [found]
    raise RuntimeError(
        "rtp-kernels-cpu needs a C++ compiler and found none: apt-get install g++ (Debian, "
        "Ubuntu), dnf install gcc-c++ (Fedora), xcode-select --install (macOS), or set CXX"
    )


def run(command: list[str]) -> None:
    """Run a compiler; its messages go into the error."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise RuntimeError(f"cannot run the compiler {command[0]!r}: {error}") from error
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-4000:]}")


if __name__ == "__main__":
    sys.stdout.write(f"{compile_library()}\n")
