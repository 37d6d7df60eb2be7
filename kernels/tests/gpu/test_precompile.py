"""Who compiles what before it is launched; the compiling itself needs a card."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from triton import knobs

from rtp_kernels.gpu import precompile, workers
from rtp_kernels.gpu.precompile import compile_all, known, missing, remember
from rtp_kernels.gpu.workers import Recorded, Workers

COMPILER = """
import json, os, sys, time
log = open(os.environ["COMPILED"], "a")
for line in sys.stdin:
    module, name, source, how = json.loads(line)
    if how == "fails":
        sys.exit(1)
    if how == "slow":
        time.sleep(0.5)
    log.write(f"{os.getpid()} {name}\\n")
    log.flush()
    print("compiled", flush=True)
"""


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """Workers that write down what they were given; a list of (process, kernel)."""
    file = tmp_path / "compiled"
    file.touch()
    environment = {**os.environ, "COMPILED": str(file)}

    def start():
        return subprocess.Popen(
            [sys.executable, "-S", "-c", COMPILER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )

    monkeypatch.setattr(workers, "start", start)
    return lambda: [tuple(line.split()) for line in file.read_text().splitlines()]


def kernel(number, how="{}"):
    return Recorded("module", f"kernel{number}", "source", how)


def test_each_kernel_is_compiled_once_by_somebody(compiled):
    with Workers(3) as some:
        for number in [*range(20), *range(20)]:
            some.put(kernel(number))
    assert sorted(name for _, name in compiled()) == sorted(f"kernel{n}" for n in range(20))
    assert (some.count, some.complete) == (20, True)


def test_who_is_free_takes_the_next(compiled):
    with Workers(2) as some:
        some.put(kernel(0, "slow"))
        time.sleep(0.05)
        for number in range(1, 9):
            some.put(kernel(number))
    (slow,) = (process for process, name in compiled() if name == "kernel0")
    assert sum(process == slow for process, _ in compiled()) <= 2


def test_a_worker_that_fails_costs_its_kernel_and_is_told(compiled):
    with Workers(2) as some:
        some.put(kernel(0, "fails"))
        for number in range(1, 6):
            some.put(kernel(number))
    assert not some.complete
    assert sorted(name for _, name in compiled()) == [f"kernel{n}" for n in range(1, 6)]


def test_nobody_is_left_when_all_fail(compiled):
    with Workers(2) as some:
        for number in range(6):
            some.put(kernel(number, "fails"))
    assert not some.complete
    assert compiled() == []


def test_without_a_kernel_nobody_starts(compiled):
    with Workers(4) as some:
        pass
    assert (some.count, some.complete, some._processes) == (0, True, [])


def test_an_exception_kills_those_at_work(compiled):
    def fail():
        with Workers(2) as some:
            some.put(kernel(0, "slow"))
            processes.extend(some._processes)
            raise ValueError("no model")

    processes = []
    began = time.monotonic()
    with pytest.raises(ValueError, match="no model"):
        fail()
    assert time.monotonic() - began < 5
    assert all(process.poll() is not None for process in processes)


def test_what_a_dry_run_meets_is_compiled_while_it_goes_on(compiled):
    def hook(name):
        function = SimpleNamespace(cache_key="source")
        about = SimpleNamespace(module="module", name=name, jit_function=function)
        return knobs.runtime.jit_cache_hook(fn=about, compile={"specialization_data": "{}"})

    seen = []

    def run():
        assert hook("first")
        for _ in range(1000):
            if compiled():
                break
            time.sleep(0.01)
        seen.extend(compiled())
        assert hook("second")
        assert hook("first")

    before = knobs.runtime.jit_cache_hook
    assert compile_all(run, 2) == (2, True)
    assert [name for _, name in seen] == ["first"]
    assert knobs.runtime.jit_cache_hook is before


def test_kernels_that_are_missing_are_told_each_time():
    told = []
    with missing(told.append):
        function = SimpleNamespace(cache_key="s")
        about = SimpleNamespace(module="m", name="n", jit_function=function)
        for _ in range(2):
            assert knobs.runtime.jit_cache_hook(fn=about, compile={"specialization_data": "{}"})
    assert told == [Recorded("m", "n", "s", "{}")] * 2


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
    """Neither touches the device; an answer follows each kernel, and nothing else does.

    What is compiled goes by the digest of who asked.
    """
    made, read_end = [], os.pipe()

    class Driver:
        @staticmethod
        def launcher_cls(source, metadata):
            made.append((source, metadata))

    class Kernel:
        def preload(self, specialization):
            os.write(1, b"noise\n")
            return SimpleNamespace(src=specialization, metadata="metadata")

    kernels = SimpleNamespace(first=Kernel(), second=Kernel())
    wanted = [("module", "first", "digest 1", "a"), ("module", "second", "digest 2", "b")]
    monkeypatch.setattr(workers, "import_module", lambda name: kernels)
    monkeypatch.setattr(workers.driver, "_active", Driver())
    monkeypatch.setattr(
        sys, "stdin", io.StringIO("".join(json.dumps(one) + "\n" for one in wanted))
    )
    held = os.dup(1)
    try:
        os.dup2(read_end[1], 1)
        workers.work()
    finally:
        os.dup2(held, 1)
        os.close(held)
        os.close(read_end[1])
    with os.fdopen(read_end[0], "rb") as answers:
        assert answers.read() == b"compiled\ncompiled\n"
    assert made == [("a", "metadata"), ("b", "metadata")]
    assert (kernels.first.hash, kernels.second.hash) == ("digest 1", "digest 2")
