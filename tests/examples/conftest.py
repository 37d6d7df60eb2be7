"""The example distributions, installed from copies into a directory of their own."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from installing import EXAMPLES, ROOT, pip_install


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> Path:
    """Directory that holds both examples as pip leaves them."""
    copies = tmp_path_factory.mktemp("sources")
    projects = [shutil.copytree(ROOT / "examples" / name, copies / name) for name in EXAMPLES]
    target = tmp_path_factory.mktemp("site")
    pip_install(projects, target)
    return target


@pytest.fixture
def importable(installed, monkeypatch) -> Path:
    """Both examples can be imported in this process while the test runs."""
    monkeypatch.syspath_prepend(str(installed))
    return installed
