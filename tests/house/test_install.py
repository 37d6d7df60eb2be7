"""The wheels alone, in an empty environment, answer a request."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ANSWER = """
import sys
from rtp_core import LLM, SamplingParams
with LLM(model=sys.argv[1], speculation={"methods": ["ngram"]}) as llm:
    result, = llm.generate("hello", SamplingParams(max_tokens=4, ignore_eos=True))
    print(len(result.outputs[0].token_ids))
"""


def run(*command, cwd) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, cwd=cwd
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.long
@pytest.mark.timeout(900)
def test_wheels_in_an_empty_environment_answer_a_request(tiny_model, tmp_path):
    wheels = tmp_path / "wheels"
    projects = [
        ROOT,
        ROOT / "kernels",
        *(path.parent for path in ROOT.glob("plugins/*/pyproject.toml")),
    ]
    for project in projects:
        run(
            sys.executable,
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "-o",
            wheels,
            project,
            cwd=tmp_path,
        )
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    pins = ROOT / "constraints.txt"
    torch = re.search(r"^torch==\S+", pins.read_text(), re.MULTILINE)
    assert torch is not None
    run(python, "-m", "pip", "install", "-q", "-c", pins, torch.group(), cwd=tmp_path)
    run(python, "-m", "pip", "install", "-q", "-c", pins, *wheels.glob("*.whl"), cwd=tmp_path)
    assert run(python, "-c", ANSWER, tiny_model, cwd=tmp_path).strip().endswith("4")
    listed = run(tmp_path / "venv" / "bin" / "rtp", "plugins", cwd=tmp_path)
    assert "speculator:ngram" in listed
    assert "pytest" not in run(python, "-m", "pip", "list", cwd=tmp_path)
