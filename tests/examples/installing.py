"""Distributions installed into directories of their own, and interpreters that see them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = ("rtp-wfq", "rtp-spec-recycle")


def pip_install(projects, target: Path) -> None:
    """Without index, dependencies or isolation: only what lies here."""
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
        "--no-build-isolation", "--disable-pip-version-check", "--target", str(target),
        *map(str, projects),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]


def run_python(*arguments, path=(), cwd=None, env=None):
    """A fresh interpreter that sees this tree and `path`, and no other pytest plugin."""
    places = [*map(str, path), str(ROOT), str(ROOT / "kernels")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(places),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        **(env or {}),
    }
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        cwd=cwd,
        env=environment,
    )


def run_conformance(*arguments, path=(), cwd=None):
    """`pytest --rtp-plugin …` in a fresh interpreter."""
    plugin = ("-m", "pytest", "-p", "rtp_core.testing.pytest_plugin", "-p", "no:cacheprovider")
    return run_python(*plugin, *arguments, path=path, cwd=cwd)
