"""Models, and the plugin itself where only its sources are there."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from importlib.metadata import entry_points
from pathlib import Path

PLUGIN = Path(__file__).parents[1]
ROOT = PLUGIN.parents[1]

_spec = importlib.util.spec_from_file_location("rtp_models", ROOT / "tests" / "conftest.py")
_models = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_models)
tiny_hf_model, save_model = _models.tiny_hf_model, _models.save_model
tiny_model, demo_model = _models.tiny_model, _models.demo_model


def pytest_configure():
    """A checkout that was not installed gets what pip would write."""
    if any(entry.name == "spec_medusa" for entry in entry_points(group="rtp.plugins")):
        return
    site = Path(tempfile.mkdtemp())
    folder = site / "rtp_spec_medusa-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: rtp-spec-medusa\nVersion: 0.1.0\n"
    )
    (folder / "entry_points.txt").write_text(
        "[rtp.plugins]\nspec_medusa = rtp_spec_medusa.plugin\n"
    )
    sys.path[:0] = [str(site), str(PLUGIN)]
