"""All distributions of the tree move in lock-step."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import rtp_core
import rtp_kernels

ROOT = Path(__file__).parents[2]
PROJECTS = [
    ROOT / "pyproject.toml",
    ROOT / "kernels" / "pyproject.toml",
    ROOT / "kernels_cpu" / "pyproject.toml",
    *sorted(ROOT.glob("plugins/*/pyproject.toml")),
]


def read(path: Path) -> dict:
    return tomllib.loads(path.read_text())["project"]


def test_versions_are_equal():
    versions = {read(path)["name"]: read(path)["version"] for path in PROJECTS}
    assert set(versions.values()) == {rtp_core.__version__}
    assert rtp_kernels.__version__ == rtp_core.__version__


def test_our_distributions_pin_each_other_by_minor():
    minor = ".".join(rtp_core.__version__.split(".")[:2])
    names = {read(path)["name"] for path in PROJECTS}
    for path in PROJECTS:
        for requirement in read(path).get("dependencies", []):
            name = re.split(r"[<>=!~;\[ ]", requirement)[0]
            if name in names:
                assert requirement == f"{name}=={minor}.*", f"{path}: {requirement}"


def test_every_distribution_states_python_and_licence():
    for path in PROJECTS:
        assert read(path)["requires-python"] == ">=3.11"
        assert read(path)["license"] == "Apache-2.0"


def test_the_changelog_has_the_version():
    assert f"## {rtp_core.__version__}" in (ROOT / "CHANGELOG.md").read_text()


TRITON_OF_TORCH = {"2.13.0": "3.7.1"}
"""What the CUDA build of torch on PyPI requires exactly; look it up there when torch moves.

pip refuses to install torch beside a pin of another triton, on a CPU too where no other index
offers a build without CUDA.
"""


def test_triton_is_the_one_that_torch_requires():
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line
    )
    assert pins["triton"] == TRITON_OF_TORCH[pins["torch"]]
