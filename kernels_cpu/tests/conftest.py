"""Compiles the library when sources are newer; without a compiler the tests are skipped."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]


def stale(library: Path) -> bool:
    if not library.exists():
        return True
    root = library.parents[1]
    sources = [root / "hatch_build.py", *(root / "native").iterdir()]
    return library.stat().st_mtime < max(path.stat().st_mtime for path in sources)


@pytest.fixture(scope="session", autouse=True)
def native():
    pytest.importorskip("torch")
    from native_build import build_module

    build = build_module()
    if stale(build.LIBRARY):
        try:
            build.find_compiler()
        except RuntimeError as error:
            pytest.skip(str(error))
        build.compile_library()


@pytest.fixture(autouse=True)
def default_settings(native):
    """Every test starts on the best instruction set and one thread."""
    from rtp_kernels_cpu import library

    library.use_level(library.levels()[0])
    library.set_threads(1)
    yield
    library.use_level(library.levels()[0])
    library.set_threads(1)
