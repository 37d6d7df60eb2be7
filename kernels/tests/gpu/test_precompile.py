"""Who compiles what before it is launched; the compiling itself needs a card."""

from __future__ import annotations

import pytest

from rtp_kernels.gpu import precompile
from rtp_kernels.gpu.precompile import Recorded, compile_all


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
    monkeypatch.setattr(precompile, "_digest", lambda recorded: str(len(recorded)))
    return shares, status


def kernels(number):
    return [Recorded("module", f"kernel{n}", "source", "{}") for n in range(number)]


def test_each_kernel_is_compiled_once_by_somebody(workers, tmp_path):
    shares, _ = workers
    assert compile_all(kernels(20) * 2, 3, tmp_path) == 20
    assert sorted(one for share in shares for one in share) == sorted(kernels(20))
    assert len(shares) == 3
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_few_kernels_are_no_reason_for_many_processes(workers, tmp_path):
    shares, _ = workers
    compile_all(kernels(5), 16, tmp_path)
    assert len(shares) == 1


def test_what_was_done_is_not_done_again(workers, tmp_path):
    shares, _ = workers
    folder = tmp_path / "new"
    compile_all(kernels(8), 2, folder)
    shares.clear()
    assert compile_all(kernels(8), 2, folder) == 0
    assert shares == []
    assert compile_all(kernels(9), 2, folder) == 9


def test_a_worker_that_fails_is_tried_again_at_the_next_start(workers, tmp_path):
    shares, status = workers
    status[1] = 1
    assert compile_all(kernels(8), 2, tmp_path) == 8
    shares.clear()
    assert compile_all(kernels(8), 2, tmp_path) == 8


def test_nothing_to_compile_starts_nobody(workers, tmp_path):
    shares, _ = workers
    assert compile_all([], 4, tmp_path) == 0
    assert shares == []
