"""Threads: the same bits, no deadlock between callers, forks and busy machines."""

from __future__ import annotations

import ctypes
import os
import statistics
import subprocess
import sys
import threading
import time

import kernel_cases as cases
import pytest
import torch

from rtp_kernels_cpu import library, linear
from rtp_kernels_cpu.weights import pack


@pytest.fixture(scope="module")
def weight():
    return pack(cases.random_codes(1536, 576, "q4_1"))


def test_threads_must_be_positive():
    with pytest.raises(ValueError, match="at least 1"):
        library.set_threads(0)


def test_one_thread_shares_nothing(weight):
    before = library.pool_counters()
    linear.linear(cases.random_rows(2, 576), weight)
    assert library.pool_counters() == before


def test_changing_thread_counts_never_changes_results(weight):
    x = cases.random_rows(9, 576)
    wanted = linear.linear(x, weight)
    shared = library.pool_counters()[0]
    for round_number in range(300):
        library.set_threads(1 + round_number % 5)
        assert torch.equal(linear.linear(x, weight), wanted)
    assert library.pool_counters()[0] > shared


def test_calls_after_a_pause_wake_sleeping_workers(weight):
    library.set_threads(3)
    x = cases.random_rows(9, 576)
    wanted = linear.linear(x, weight)
    for _ in range(20):
        time.sleep(0.005)
        assert torch.equal(linear.linear(x, weight), wanted)


def test_engines_that_call_at_the_same_time_do_not_wait_for_each_other(weight):
    """Through a handle that gives the interpreter lock away, so that calls really overlap."""
    library.set_threads(3)
    free = ctypes.CDLL(library.library()._name)
    free.rtp_linear.argtypes = library.library().rtp_linear.argtypes
    x = cases.random_rows(8, 576)
    wanted = linear.linear(x, weight)
    failures = []

    def engine():
        out = torch.empty_like(wanted)
        where = (x.data_ptr(), 8, None, 0, 0.0, 0.0, None, None, out.data_ptr(), 0, 0)
        for _ in range(300):
            out.zero_()
            free.rtp_linear(weight.address, *where)
            if not torch.equal(out, wanted):
                failures.append("wrong result")

    engines = [threading.Thread(target=engine, daemon=True) for _ in range(3)]
    for one in engines:
        one.start()
    for one in engines:
        one.join(60)
        assert not one.is_alive(), "deadlock"
    assert failures == []


def test_a_forked_child_has_a_pool_of_its_own(weight):
    library.set_threads(3)
    x = cases.random_rows(9, 576)
    wanted = linear.linear(x, weight)
    child = os.fork()
    if child == 0:
        same = all(torch.equal(linear.linear(x, weight), wanted) for _ in range(20))
        os._exit(0 if same and library.pool_counters()[0] >= 20 else 1)
    deadline = time.monotonic() + 60
    while (done := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the child hangs")
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(done[1]) == 0
    assert torch.equal(linear.linear(x, weight), wanted)


def test_a_process_ends_with_workers_asleep():
    code = (
        "import torch; from rtp_kernels_cpu import library, linear;"
        "from rtp_kernels_cpu.weights import pack; from rtp_kernels.linear_weight import quantize;"
        "library.set_threads(4); w = pack(quantize(torch.randn(1536, 576), 4));"
        "linear.linear(torch.randn(9, 576).bfloat16(), w); print('done')"
    )
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert (done.returncode, done.stdout.strip()) == (0, "done")


def seconds(weight, threads, calls=150):
    library.set_threads(threads)
    x = cases.random_rows(8, 576)
    began = time.perf_counter()
    for _ in range(calls):
        linear.linear(x, weight)
    return time.perf_counter() - began


@pytest.mark.long
def test_two_threads_on_a_busy_machine_do_not_collapse():
    """Four busy processes beside us. A pool that waits for workers without a core is tens of
    times slower; ours loses at most the time of a chunk."""
    weight = pack(cases.random_codes(3072, 576, "q4_1"))
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    try:
        rounds = [(seconds(weight, 1), seconds(weight, 2)) for _ in range(7)]
    finally:
        for one in busy:
            one.kill()
            one.wait()
    one, two = (statistics.median(times) for times in zip(*rounds, strict=True))
    assert two < 4 * one
