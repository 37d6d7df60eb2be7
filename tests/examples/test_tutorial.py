"""The tutorial is executed: its files are written, its commands run, its output is compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from installing import ROOT

TUTORIAL = ROOT / "docs" / "tutorial-first-plugin.md"
FENCE = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHIMS = {
    "rtp": "-m rtp_core",
    "pytest": "-m pytest -p rtp_core.testing.pytest_plugin -p no:cacheprovider",
    "pip": "-m pip",
}


def blocks():
    return [match.groups() for match in FENCE.finditer(TUTORIAL.read_text())]


def commands(console):
    """(command, lines of output that are shown below it)."""
    found = []
    for line in console.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


@pytest.fixture
def shell(tmp_path, tiny_model):
    """Runs a command as a reader would, installing into a directory of its own."""
    site, programs, project = (tmp_path / name for name in ("site", "bin", "rtp-echo"))
    for folder in (site, programs, project):
        folder.mkdir()
    for name, arguments in SHIMS.items():
        script = programs / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        script.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(map(str, (site, ROOT, ROOT / "kernels"))),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PIP_TARGET": str(site),
        "PIP_NO_DEPS": "1",
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this variable the other way round
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "RTP_MODEL__PATH": str(tiny_model),
    }

    def run(command):
        return subprocess.run(
            ["bash", "-c", command],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )

    return project, run


def test_following_the_tutorial_gives_what_it_shows(shell):
    project, run = shell
    for kind, file, content in blocks():
        if file is not None:
            (project / file).parent.mkdir(exist_ok=True)
            (project / file).write_text(content)
            continue
        assert kind == "console"
        for command, shown in commands(content):
            done = run(command)
            output = done.stdout + done.stderr
            assert shown or done.returncode == 0, f"$ {command}\n{output[-2000:]}"
            for line in shown:
                assert line in output, f"$ {command}\n{line!r} is not in\n{output[-3000:]}"


def test_the_toy_has_less_than_sixty_lines():
    written = [content for _, file, content in blocks() if file and file.endswith(".py")]
    assert len(written) == 3
    assert sum(len(content.splitlines()) for content in written) < 60
