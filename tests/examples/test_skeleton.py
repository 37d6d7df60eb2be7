"""`rtp plugins new`: what it writes is a plugin, at once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rtp_core.api import Role
from rtp_core.cli.main import main
from rtp_core.errors import ConfigError
from rtp_core.plugins.skeleton.write import ROLES, write_skeleton

sys.path.insert(0, str(Path(__file__).parent))
from installing import pip_install, run_conformance, run_python


@pytest.fixture(scope="module")
def skeletons(tmp_path_factory):
    """One of each role, written by the command and installed: (sources, site)."""
    sources = tmp_path_factory.mktemp("skeletons")
    for role in ROLES:
        name = f"new_{role.value}"
        argv = ["plugins", "new", name, "--role", role.value, "--directory", str(sources)]
        assert main(argv) == 0
    site = tmp_path_factory.mktemp("skeleton-site")
    pip_install(sorted(sources.iterdir()), site)
    return sources, site


def test_every_skeleton_passes_conformance_as_it_stands(skeletons, tmp_path):
    names = [f"new_{role.value}" for role in ROLES]
    arguments = [word for name in names for word in ("--rtp-plugin", name)]
    done = run_conformance(*arguments, "-v", path=[skeletons[1]], cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "SKIPPED" not in done.stdout
    for role in ROLES:
        assert f"rtp:new_{role.value}::{role.value}:new_{role.value}::" in done.stdout


def test_every_skeleton_passes_its_own_tests(skeletons):
    sources, site = skeletons
    done = run_python("-m", "pytest", "-q", sources, path=[site], cwd=sources)
    assert done.returncode == 0, done.stdout[-3000:]


def test_listing_shows_what_was_written(skeletons):
    done = run_python("-m", "rtp_core", "plugins", path=[skeletons[1]])
    for role in ROLES:
        assert f"{role.value}:new_{role.value}" in done.stdout
    assert "BROKEN" not in done.stdout


def test_names_are_spelt_as_python_and_pip_want_them(tmp_path):
    root = write_skeleton("two_words", Role.SCHEDULER, tmp_path)
    assert root.name == "rtp-two-words"
    assert (root / "rtp_two_words" / "__init__.py").read_text() == ""
    assert "class TwoWordsPolicy" in (root / "rtp_two_words" / "scheduler.py").read_text()
    assert not [file for file in root.rglob("*") if file.is_file() and "$" in file.read_text()]


@pytest.mark.parametrize("name", ["Upper", "1st", "has-dash", "", "a b", "core", "kernels"])
def test_a_name_that_cannot_be_is_refused(name, tmp_path):
    with pytest.raises(ConfigError, match="NAME"):
        write_skeleton(name, Role.SCHEDULER, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path):
    root = write_skeleton("mine", Role.LOADER, tmp_path)
    (root / "README.md").write_text("precious")
    with pytest.raises(ConfigError, match="exists"):
        write_skeleton("mine", Role.LOADER, tmp_path)
    assert (root / "README.md").read_text() == "precious"


def test_a_role_without_skeleton_is_a_usage_error(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["plugins", "new", "x", "--role", "encoder", "--directory", str(tmp_path)])
    assert caught.value.code == 2
    assert "scheduler" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="--role"):
        write_skeleton("x", Role.ENCODER, tmp_path)
