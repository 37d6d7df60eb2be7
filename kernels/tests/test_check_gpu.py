"""The one entry over all checks goes on after a check that fails, and says so."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / "check_gpu.py"
START = """
import json, sys, time
if __name__ == "__main__":
    target = sys.argv[sys.argv.index("--json") + 1]
"""
CHECKS = {
    "a_dies": START + "    sys.exit(3)\n",
    "b_hangs": START + "    time.sleep(60)\n",
    "c_breaks_off": START + "    open(target, 'w').write('{'); sys.exit(1)\n",
    "d_passes": START + "    json.dump({'us': 7}, open(target, 'w'))\n",
    "part": "raise RuntimeError('no check, and nobody runs it')\n",
}


@pytest.fixture(scope="module")
def check_gpu():
    spec = importlib.util.spec_from_file_location("check_gpu", FILE)
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["check_gpu"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["check_gpu"]


@pytest.fixture
def folder(tmp_path):
    for name, text in CHECKS.items():
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


def test_every_check_runs_and_each_failure_is_told(check_gpu, folder, capfd):
    target = folder / "all.json"
    assert check_gpu.main(["--limit", "2", "--json", str(target)], folder) == 1
    shown = capfd.readouterr().out
    for line in ("exit status 3", "stopped after 2 s", "exit status 1", "passed"):
        assert line in shown
    found = json.loads(target.read_text())
    assert [(name, one["passed"]) for name, one in found.items()] == [
        ("a_dies", False), ("b_hangs", False), ("c_breaks_off", False), ("d_passes", True),
    ]  # fmt: skip
    assert found["d_passes"]["found"] == {"us": 7}
    assert found["c_breaks_off"]["found"] is None


def test_one_that_passes_alone_is_a_success(check_gpu, folder):
    assert check_gpu.main(["--only", "d_passes"], folder) == 0


def test_an_unknown_name_is_refused_with_those_there_are(check_gpu, folder, capsys):
    with pytest.raises(SystemExit):
        check_gpu.main(["--only", "d_passes,linaer"], folder)
    assert "linaer is none of a_dies, b_hangs" in capsys.readouterr().err


def test_the_checks_of_this_repository_are_found(check_gpu):
    names = {file.stem for file in check_gpu.checks_in(check_gpu.CHECKS)}
    assert {"attention", "linear", "sampling"} <= names
    assert "timing" not in names
