"""Fake distributions in a folder on the path: package, manifest, dist-info."""

from __future__ import annotations

import importlib
import sys
import textwrap
from pathlib import Path

import pytest

from rtp_core.api import BuildContext, EngineLimits
from rtp_core.engine.services import MeasuredCosts, MonotonicClock

OFFER_EAGLE = """
from rtp_core.api import Offer, Role, hookimpl

class Drafter:
    needs = None
    def __init__(self, options): self.options = options
    def propose(self, rows): return []
    def observe(self, commits): pass
    def release(self, sequence_id): pass

def build(context, options):
    return Drafter(options)

@hookimpl
def rtp_speculators():
    return (Offer(Role.SPECULATOR, "eagle", build),)
"""


class Site:
    """A site-packages folder. `install` writes what pip would."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def install(self, name, body=OFFER_EAGLE, manifest=None, version="1.0", **keys):
        """Package ``fake_<name>`` of distribution ``rtp-<name>``; returns its folder."""
        package = self.root / f"fake_{name}"
        self.write_package(package, body, self.manifest(name, manifest, **keys))
        self.register(name, f"fake_{name}.plugin", version)
        return package

    def register(self, name, module, version="1.0", distribution=None):
        distribution = distribution or f"rtp-{name.replace('_', '-')}"
        info = self.root / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        (info / "entry_points.txt").write_text(f"[rtp.plugins]\n{name} = {module}\n")
        importlib.invalidate_caches()

    @staticmethod
    def write_package(package, body, manifest):
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "plugin.py").write_text(textwrap.dedent(body))
        if manifest:
            (package / "plugin.toml").write_text(textwrap.dedent(manifest))

    @staticmethod
    def manifest(name, text, api="1.0", provides=("speculator:eagle",), needs=(), conflicts=()):
        if text is not None:
            return text
        lists = "".join(
            f"{key} = {list(value)!r}\n"
            for key, value in (("provides", provides), ("needs", needs), ("conflicts", conflicts))
        )
        return f'[plugin]\nname = "{name}"\napi = "{api}"\n{lists}'


@pytest.fixture
def site(tmp_path, monkeypatch):
    folder = Site(tmp_path / "site")
    monkeypatch.syspath_prepend(str(folder.root))
    yield folder
    for module in [name for name in sys.modules if name.startswith("fake_")]:
        del sys.modules[module]


@pytest.fixture
def context():
    limits = EngineLimits(128, 4, 64, 16, 4)
    return BuildContext("cpu", "float32", limits, MonotonicClock(), MeasuredCosts())
