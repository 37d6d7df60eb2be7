"""ARCHITECTURE.md lists the modules that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "ARCHITECTURE.md").read_text()
PARTS = re.findall(r"^### (\S+/)\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE)
UNLISTED = {"__init__.py", "plugin.py"}


def test_parts_are_found():
    assert len(PARTS) > 10


@pytest.mark.parametrize(("folder", "text"), PARTS, ids=[folder for folder, _ in PARTS])
def test_each_module_of_a_listed_folder_has_a_line(folder, text):
    listed = re.findall(r"^(\w+\.py) ", text, re.MULTILINE)
    there = {path.name for path in (ROOT / folder).glob("*.py")} - UNLISTED
    assert sorted(listed) == sorted(there)


def test_each_operation_has_a_line():
    text = dict(PARTS)["kernels/rtp_kernels/"]
    there = {path.parent.name for path in (ROOT / "kernels/rtp_kernels").glob("*/reference.py")}
    assert there - {"sampling"} == set(re.findall(r"(\w+)/ ", text))


def test_paths_that_are_named_exist():
    paths = re.findall(r"`((?:rtp_core|kernels|kernels_cpu|tests|bench)/[\w/]+\.\w+)`", PAGE)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []
