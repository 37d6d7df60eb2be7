"""`pytest --rtp-plugin`: what it collects, how failures read, and what it costs when unused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "rtp_core.plugins", "rtp_core.testing.collection",
         "rtp_core.config", "rtp_core.api")  # fmt: skip
LIST_MODULES = """
import json, sys

def pytest_sessionfinish(session):
    print("MODULES" + json.dumps(sorted(sys.modules)))
"""


@pytest.fixture
def run(tmp_path):
    """pytest with this plugin only, in an empty directory."""

    def call(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "rtp_core.testing.pytest_plugin",
             "-p", "no:cacheprovider", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}",
                 "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        )  # fmt: skip

    return call


def modules_after(run, tmp_path, *arguments):
    (tmp_path / "conftest.py").write_text(LIST_MODULES)
    (tmp_path / "test_one.py").write_text("def test_one(): pass\n")
    output = run("-s", *arguments).stdout
    (line,) = (one for one in output.splitlines() if "MODULES" in one)
    return json.loads(line.partition("MODULES")[2])


def test_the_entry_point_is_declared_and_exists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["entry-points"]["pytest11"]
    assert declared == {"rtp_conformance": "rtp_core.testing.pytest_plugin"}
    assert hasattr(import_module(declared["rtp_conformance"]), "pytest_addoption")


def test_the_entry_point_gives_pytest_the_option(tmp_path):
    """Found by metadata alone, as after `pip install rtp-core`."""
    metadata = tmp_path / "rtp_core-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: rtp-core\nVersion: 0.1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[pytest11]\nrtp_conformance = rtp_core.testing.pytest_plugin\n"
    )
    places = os.pathsep.join(map(str, (tmp_path, ROOT, ROOT / "kernels")))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--rtp-plugin", "core.speculation", "-q",
         "-p", "no:cacheprovider"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": places},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "23 passed" in done.stdout


def test_without_the_option_nothing_is_imported(run, tmp_path):
    loaded = modules_after(run, tmp_path)
    assert not [name for name in loaded if name in HEAVY]


def test_collecting_a_scheduler_imports_no_torch(run, tmp_path):
    loaded = modules_after(run, tmp_path, "--rtp-plugin", "core.scheduling", "--collect-only")
    assert "rtp_core.testing.collection" in loaded
    assert "torch" not in loaded
    assert "rtp_core.scheduling.plugin" not in loaded


def test_ids_name_plugin_offer_and_rule(run):
    done = run("--rtp-plugin", "core.scheduling", "--collect-only", "-q")
    ids = [line for line in done.stdout.splitlines() if line.startswith("rtp:")]
    assert "rtp:core.scheduling::plugin::the_manifest_is_sound" in ids
    assert "rtp:core.scheduling::scheduler:prefix::nobody_waits_forever" in ids
    assert len(ids) == len(set(ids)) == 37


def test_only_the_plugin_is_tested_unless_paths_are_named(run, tmp_path):
    (tmp_path / "test_mine.py").write_text("def test_mine(): pass\n")
    alone = run("--rtp-plugin", "core.speculation", "--collect-only", "-q").stdout
    both = run("--rtp-plugin", "core.speculation", "test_mine.py", "--collect-only", "-q").stdout
    assert "test_mine" not in alone
    assert "test_mine.py::test_mine" in both
    assert "rtp:core.speculation::speculator:ngram::drafts_fit" in both


def test_items_are_chosen_by_keyword(run):
    done = run("--rtp-plugin", "core.speculation", "-k", "drafts_fit")
    assert done.returncode == 0
    assert "1 passed" in done.stdout


def test_several_plugins_in_one_run(run):
    done = run("--rtp-plugin", "core.scheduling", "--rtp-plugin", "core.speculation", "-q")
    assert done.returncode == 0, done.stdout[-2000:]


def test_options_reach_the_plugin_and_its_refusal_is_shown(run, tmp_path):
    (tmp_path / "options.toml").write_text('[plugins."core.speculation"]\nngram_min = 9\n')
    done = run("--rtp-plugin", "core.speculation", "--rtp-plugin-options", "options.toml")
    assert done.returncode == 1
    assert "ngram_min 9 and ngram_max 4 are out of bounds" in done.stdout
    assert "Traceback" not in done.stdout


def test_the_traceback_comes_with_vv(run, tmp_path):
    (tmp_path / "options.toml").write_text('[plugins."core.speculation"]\nngram_min = 9\n')
    done = run("--rtp-plugin", "core.speculation", "--rtp-plugin-options", "options.toml", "-vv")
    assert "rtp_core/speculation/plugin.py" in done.stdout


def test_a_models_configuration_can_be_given(run, tmp_path):
    (tmp_path / "options.toml").write_text("[conformance.model_config]\nhidden_size = 32\n")
    done = run(
        "--rtp-plugin", "core.models", "--rtp-plugin-options", "options.toml",
        "-k", "the_spec_describes",
    )  # fmt: skip
    assert done.returncode == 1
    assert "config.json: num_hidden_layers" in done.stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[options]\nx = 1\n", "[options] is neither"),
        ("not toml", "options.toml:"),
        (None, "options.toml:"),
        ("[plugins.nobody]\nx = 1\n", "no plugin of this name is installed"),
    ],
)
def test_wrong_option_files_are_named(run, tmp_path, content, message):
    if content is not None:
        (tmp_path / "options.toml").write_text(content)
    done = run("--rtp-plugin", "core.scheduling", "--rtp-plugin-options", "options.toml")
    assert done.returncode in (1, 4)
    assert message in done.stdout + done.stderr


def test_an_unknown_plugin_is_a_usage_error(run):
    done = run("--rtp-plugin", "core.scheduler")
    assert done.returncode == 4
    assert "did you mean 'core.scheduling'" in done.stderr
