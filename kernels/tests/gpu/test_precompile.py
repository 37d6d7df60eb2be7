"""Who compiles what before it is launched; the compiling itself needs a card."""

from __future__ import annotations

import io
import json
import shutil
from types import SimpleNamespace

import pytest
from triton import knobs

from rtp_kernels.gpu import precompile
from rtp_kernels.gpu.precompile import Recorded, compile_all, known, remember


class Worker:
    def __init__(self, status):
        self.status = status

    def wait(self):
        return self.status


@pytest.fixture
def workers(monkeypatch):
    """Pieces of work by worker; `status` of the n-th."""
    shares, status = [], {}

    def start(recorded):
        shares.append(list(recorded))
        return Worker(status.get(len(shares) - 1, 0))

    monkeypatch.setattr(precompile, "_start", start)
    return shares, status


def kernels(number):
    return [Recorded("module", f"kernel{n}", "source", "{}") for n in range(number)]


def test_each_kernel_is_compiled_once_by_somebody(workers):
    shares, _ = workers
    assert compile_all(kernels(20) * 2, 3)
    assert sorted(one for share in shares for one in share) == sorted(kernels(20))
    assert len(shares) == 3
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_few_kernels_are_no_reason_for_many_processes(workers):
    shares, _ = workers
    compile_all(kernels(5), 16)
    assert len(shares) == 1


def test_a_worker_that_fails_is_told_and_all_are_waited_for(workers):
    shares, status = workers
    status[0] = 1
    assert not compile_all(kernels(8), 2)
    assert len(shares) == 2


def test_nothing_to_compile_starts_nobody(workers):
    shares, _ = workers
    assert compile_all([], 4)
    assert shares == []


def test_what_was_compiled_is_remembered_with_all_it_depends_on(tmp_path, monkeypatch):
    monkeypatch.setattr(precompile, "_device", lambda: "a card")
    monkeypatch.setattr(knobs.cache, "dir", str(tmp_path / "cache"))
    assert not known("model")
    remember("model")
    assert known("model")
    assert not known("another model")
    monkeypatch.setattr(precompile, "_device", lambda: "another card")
    assert not known("model")
    monkeypatch.setattr(precompile, "_device", lambda: "a card")
    monkeypatch.setattr(precompile, "_sources", lambda: "other kernels")
    assert not known("model")


def test_an_emptied_cache_forgets(tmp_path, monkeypatch):
    monkeypatch.setattr(precompile, "_device", lambda: "a card")
    monkeypatch.setattr(knobs.cache, "dir", str(tmp_path / "cache"))
    remember("model")
    shutil.rmtree(tmp_path / "cache")
    assert not known("model")


def test_a_worker_compiles_kernels_and_what_launches_them(monkeypatch):
    """Both end in the cache on disk; neither touches the device."""
    made = []

    class Driver:
        @staticmethod
        def launcher_cls(source, metadata):
            made.append((source, metadata))

    class Kernel:
        def preload(self, specialization):
            return SimpleNamespace(src=specialization, metadata="metadata")

    work_of = [("module", "first", "source", "a"), ("module", "second", "source", "b")]
    kernels = SimpleNamespace(first=Kernel(), second=Kernel())
    monkeypatch.setattr(precompile, "import_module", lambda name: kernels)
    monkeypatch.setattr(precompile.driver, "_active", Driver())
    standard_input = SimpleNamespace(buffer=io.BytesIO(json.dumps(work_of).encode()))
    monkeypatch.setattr(precompile.sys, "stdin", standard_input)
    precompile.work()
    assert made == [("a", "metadata"), ("b", "metadata")]
