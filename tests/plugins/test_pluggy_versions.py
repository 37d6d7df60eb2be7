"""The host behaves the same under the oldest pluggy the package accepts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

OLDEST = "1.6.0"
HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@pytest.fixture(scope="module")
def old_pluggy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pluggy")
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder),
        "--disable-pip-version-check", "--retries", "1", f"pluggy=={OLDEST}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        pytest.skip(f"pluggy {OLDEST} cannot be obtained: {last}")
    return folder


def run(folder, *arguments):
    path = os.pathsep.join([str(folder), str(ROOT), str(ROOT / "kernels")])
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True, text=True, timeout=240, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


def test_the_plugin_tests_pass_under_the_oldest_pluggy(old_pluggy):
    shown = run(old_pluggy, "-c", "import pluggy; print(pluggy.__version__)")
    assert shown.stdout.strip() == OLDEST
    files = [str(HERE / name) for name in ("test_host.py", "test_builtins.py")]
    done = run(old_pluggy, "-m", "pytest", "-q", *files)
    assert done.returncode == 0, done.stdout
