"""Plugins use the contract and the kernels, no private door and not each other."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGINS = sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))
ALLOWED = ("rtp_core.api", "rtp_core.errors", "rtp_kernels")
MODULES = [
    pytest.param(plugin, path, id=str(path.relative_to(plugin)))
    for plugin in PLUGINS
    for path in sorted((plugin / plugin.name).rglob("*.py"))
]


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def test_there_are_plugins():
    assert PLUGINS


@pytest.mark.parametrize(("plugin", "path"), MODULES)
def test_a_plugin_imports_the_contract_and_nothing_else_of_ours(plugin, path):
    ours = {name for name in imported(path) if name.startswith("rtp_")}
    allowed = (*ALLOWED, plugin.name)
    assert [name for name in ours if not any(inside(name, one) for one in allowed)] == []


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda one: one.name)
def test_a_plugin_is_whole(plugin):
    """Distribution, entry point, manifest, README and tests name one thing."""
    project = tomllib.loads((plugin / "pyproject.toml").read_text())["project"]
    manifest = tomllib.loads((plugin / plugin.name / "plugin.toml").read_text())["plugin"]
    points = project["entry-points"]["rtp.plugins"]
    assert project["name"] == plugin.name.replace("_", "-")
    assert points == {manifest["name"]: f"{plugin.name}.plugin"}
    assert (plugin / project["readme"]).stat().st_size > 500
    assert list((plugin / "tests").glob("test_*.py"))
    assert (plugin / plugin.name / "__init__.py").read_text() == ""


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda one: one.name)
def test_a_plugin_states_what_it_imports(plugin):
    """Every package imported is a dependency."""
    project = tomllib.loads((plugin / "pyproject.toml").read_text())["project"]
    stated = {one.split("=")[0].split(">")[0].replace("-", "_") for one in project["dependencies"]}
    names = {name.partition(".")[0] for path in (plugin / plugin.name).rglob("*.py")
             for name in imported(path)}  # fmt: skip
    import sys

    foreign = names - set(sys.stdlib_module_names) - {plugin.name, "numpy"}
    assert foreign <= stated
