"""Clients in environments of their own, made from pinned lists and kept for the next run."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
INSTALL_S = 900


@dataclass(frozen=True)
class Program:
    """Programs of one client: `python` is its interpreter, `url` the service's."""

    python: Path
    url: str

    def run(self, name: str, *arguments: str, timeout_s: float = 300) -> str:
        """The output of `programs/NAME URL ARGUMENTS`; a program that fails fails the test."""
        return self.command(HERE / "programs" / name, self.url, *arguments, timeout_s=timeout_s)

    def command(self, *arguments, timeout_s: float = 300, **variables: str) -> str:
        """The output of the interpreter with these arguments."""
        done = subprocess.run(
            [str(part) for part in (self.python, *arguments)],
            capture_output=True, text=True, check=False, timeout=timeout_s,
            cwd=tempfile.gettempdir(), env={**_environment(), **variables},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
        return done.stdout


def _environment() -> dict[str, str]:
    """Nothing of this tree, no hub, no telemetry."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    quiet = {"HF_HUB_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "DO_NOT_TRACK": "1"}
    return {**kept, **quiet}


def environment(client: str, cache: Path) -> Path:
    """The interpreter of a client's environment; skips where no package index is reachable.

    The list in `requirements/` is complete, so that nothing is resolved and nothing heavy
    comes in unasked. A changed list makes a new environment. torch is never installed: what a
    list lacks is found in the environment of the tests.
    """
    wanted = HERE / "requirements" / f"{client}.txt"
    digest = hashlib.sha256(wanted.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = cache / f"{client}-{digest}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        _install(python, wanted)
        _see_also(python, Path(torch.__file__).parents[1])
        (folder / "complete").touch()
    return python


def _install(python: Path, wanted: Path) -> None:
    done = _pip(python, "install", "--quiet", "--no-deps", "-r", wanted)
    if done.returncode == 0:
        return
    with tempfile.TemporaryDirectory() as folder:
        reachable = _pip(python, "download", "--quiet", "--no-deps", "-d", folder, "h11==0.16.0")
    if reachable.returncode != 0:
        pytest.skip(f"no package index is reachable for {wanted.name}")
    raise AssertionError(done.stderr[-3000:])


def _see_also(python: Path, packages: Path) -> None:
    """Packages that the environment lacks are taken from `packages`."""
    (own,) = python.parents[1].glob("lib/python3*/site-packages")
    (own / "tests.pth").write_text(f"{packages}\n")


def _pip(python: Path, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(part) for part in (python, "-m", "pip", *arguments)],
        capture_output=True, text=True, check=False, timeout=INSTALL_S,
    )  # fmt: skip
