"""The trainers of the repository's plugins, offered by one distribution made for tests."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[2] / "plugins"
PLUGIN = """
from rtp_core.api import Offer, Role, hookimpl

def eagle(context, options):
    from rtp_spec_eagle.training.trainer import EagleTrainer
    return EagleTrainer()

def medusa(context, options):
    from rtp_spec_medusa.training.trainer import MedusaTrainer
    return MedusaTrainer()

@hookimpl
def rtp_draft_trainers():
    return tuple(
        Offer(Role.DRAFT_TRAINER, one.__name__ + "_test", one) for one in (eagle, medusa)
    )
"""
MANIFEST = """
[plugin]
name = "trainers_for_tests"
api = "1.2"
provides = ["draft_trainer:eagle_test", "draft_trainer:medusa_test"]
"""


@pytest.fixture
def plugins(monkeypatch):
    """The packages of both plugins can be imported, installed or not."""
    for name in ("rtp_spec_eagle", "rtp_spec_medusa"):
        monkeypatch.syspath_prepend(str(PLUGINS / name))


@pytest.fixture
def trainers(plugins, tmp_path, monkeypatch):
    """Methods eagle_test and medusa_test."""
    site = tmp_path / "site"
    package = site / "trainers_for_tests"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "plugin.py").write_text(PLUGIN)
    (package / "plugin.toml").write_text(MANIFEST)
    info = site / "trainers_for_tests-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: trainers-for-tests\nVersion: 1.0\n"
    )
    (info / "entry_points.txt").write_text(
        "[rtp.plugins]\ntrainers_for_tests = trainers_for_tests.plugin\n"
    )
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
