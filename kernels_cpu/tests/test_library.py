"""Loading: what `available` says, instruction sets, and the build's errors."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest
import torch
from native_build import build_module

import rtp_kernels_cpu
from rtp_kernels_cpu import library, linear, self_test


@pytest.fixture
def forgetful():
    """Asks again instead of remembering."""
    library.library.cache_clear()
    self_test.failure.cache_clear()
    yield
    library.library.cache_clear()
    self_test.failure.cache_clear()


def test_the_library_is_available():
    assert rtp_kernels_cpu.available() is None


def test_a_missing_library_is_named(forgetful, monkeypatch, tmp_path):
    monkeypatch.setattr(library, "files", lambda _: tmp_path)
    reason = rtp_kernels_cpu.available()
    assert reason is not None
    assert "missing" in reason


def test_a_file_that_is_no_library_is_named(forgetful, monkeypatch, tmp_path):
    (tmp_path / "native.so").write_text("not a library")
    monkeypatch.setattr(library, "files", lambda _: tmp_path)
    assert rtp_kernels_cpu.available() is not None


def test_a_library_of_another_version_is_refused(forgetful, monkeypatch):
    monkeypatch.setattr(library, "VERSION", library.VERSION + 1)
    reason = rtp_kernels_cpu.available()
    assert reason is not None
    assert "interface" in reason


def test_wrong_results_are_noticed(forgetful, monkeypatch):
    monkeypatch.setattr(linear, "head", lambda x, norm, eps, weight: torch.ones(3, 48))
    reason = rtp_kernels_cpu.available()
    assert reason is not None
    assert "4-bit product is wrong" in reason


def test_levels_end_with_the_portable_one():
    assert library.levels()[-1] == "scalar"
    assert library.level() == library.levels()[0]


def test_an_unknown_level_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="scalar"):
        library.use_level("mmx")


def test_importing_the_package_does_not_import_torch():
    code = "import sys, rtp_kernels_cpu; print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == "False"


def test_without_a_compiler_the_build_names_the_package_to_install(monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"apt-get install g\+\+"):
        build_module().find_compiler()


def test_the_compiler_can_be_named(monkeypatch):
    monkeypatch.setenv("CXX", "ccache g++-13")
    assert build_module().find_compiler() == ["ccache", "g++-13"]


def test_messages_of_a_failing_compiler_are_shown(monkeypatch, tmp_path):
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\necho out of luck >&2\nexit 1\n")
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(compiler))
    before = build_module().LIBRARY.stat().st_mtime_ns
    with pytest.raises(RuntimeError, match="out of luck"):
        build_module().compile_library()
    assert build_module().LIBRARY.stat().st_mtime_ns == before
