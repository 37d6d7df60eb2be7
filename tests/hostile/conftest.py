"""A server process of its own to attack, watched from outside: whether it lives, what it holds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "server")]
from kit import write_model  # noqa: E402
from target import Target  # noqa: E402


@pytest.fixture(scope="session")
def target(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    with Target(write_model(folder), folder / "log") as running:
        yield running


@pytest.fixture(autouse=True)
def unharmed(request):
    """After every attack on the target: it serves, holds nothing, and met no bug."""
    yield
    if "target" in request.fixturenames:
        request.getfixturevalue("target").check_unharmed()
