"""hatch_build.py as a module; it lies outside the package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType


def build_module() -> ModuleType:
    path = Path(__file__).parents[1] / "hatch_build.py"
    spec = importlib.util.spec_from_file_location("rtp_hatch_build", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
