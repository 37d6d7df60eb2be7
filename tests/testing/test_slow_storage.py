"""The emulated storage obeys its own law: latencies overlap, bytes queue, nothing is sooner."""

from __future__ import annotations

import os
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtp_core.loading.file_order import FileOrderLoader
from rtp_core.testing.slow_mount import slow_mount, why_not
from rtp_core.testing.slow_storage import SlowFile, SlowLink


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s

    def sleep(self, seconds):
        self.now_s += seconds


@given(
    latency_s=st.floats(0, 1),
    bytes_per_s=st.floats(1, 1e9),
    requests=st.lists(st.tuples(st.floats(0, 2), st.integers(0, 10**6)), min_size=1, max_size=30),
)
def test_no_request_is_answered_before_latency_and_bandwidth_allow(
    latency_s, bytes_per_s, requests
):
    clock = Clock()
    link = SlowLink(latency_s, bytes_per_s, clock, clock.sleep)
    booked, last = 0, 0.0
    for pause_s, num_bytes in requests:
        clock.now_s += pause_s
        due_s = link.due_s(num_bytes)
        booked += num_bytes
        last = max(last, due_s)
        assert due_s >= clock.now_s + latency_s
        assert due_s >= clock.now_s + num_bytes / bytes_per_s - 1e-6
    assert last >= link.limit_s(booked) - 1e-6
    assert link.counts.requests == len(requests)
    assert link.counts.num_bytes == booked


def test_latencies_of_requests_at_once_overlap_and_those_of_a_chain_add_up():
    clock = Clock()
    link = SlowLink(0.02, 1e12, clock, clock.sleep)
    assert {round(link.due_s(1000), 6) for _ in range(64)} == {0.02}
    for _ in range(10):
        link.wait(1000)
    assert clock.now_s == pytest.approx(0.2, rel=1e-3)


def test_bytes_of_requests_at_once_queue():
    clock = Clock()
    link = SlowLink(0.001, 1e6, clock, clock.sleep)
    due_s = [link.due_s(10_000) for _ in range(5)]
    assert due_s == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05])


def test_an_idle_link_saves_nothing_up():
    clock = Clock()
    link = SlowLink(0.0, 1e6, clock, clock.sleep)
    clock.now_s = 100.0
    assert link.due_s(1_000_000) == pytest.approx(101.0)


def test_requests_under_way_at_once_are_counted():
    link = SlowLink(0.05, 1e12)
    threads = [threading.Thread(target=link.wait, args=(10,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert link.counts.most_at_once == 6


def test_a_slow_file_gives_the_files_bytes_in_requests(tmp_path):
    data = os.urandom(10_000)
    (tmp_path / "x").write_bytes(data)
    link = SlowLink(0.0, 1e12)
    file = SlowFile.opener(link, 4096)(str(tmp_path / "x"))
    buffer = bytearray(20_000)
    assert file.read_into(0, memoryview(buffer)) == 10_000
    assert bytes(buffer[:10_000]) == data
    assert link.counts.requests == 3
    assert file.read_into(10_000, memoryview(buffer)) == 0
    file.close()


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_a_mount_is_slow_when_cold_fast_when_warm_and_cold_again_after_a_remount(tmp_path):
    data = os.urandom(2**20)
    (tmp_path / "x").write_bytes(data)
    for _ in range(2):
        with slow_mount(tmp_path, 0.01, 1e9) as mount:
            began = time.monotonic()
            assert (mount.point / "x").read_bytes() == data
            assert time.monotonic() - began >= 0.01
            assert (mount.point / "x").read_bytes() == data
            with pytest.raises(OSError, match="Read-only"):
                (mount.point / "y").write_bytes(b"")
        assert not mount.point.exists()
        assert mount.counts is not None
        assert mount.counts.num_bytes == 2**20
        assert mount.counts.requests >= 8


def test_many_reads_in_flight_hide_latency(tmp_path):
    """Of 64 reads at 20 ms: one at a time 1.28 s, 32 at a time 0.04."""
    from rtp_core.api import Placement, TensorInfo, WeightPlan, WeightRule

    (tmp_path / "x").write_bytes(os.urandom(64 * 1000))
    name = str(tmp_path / "x")
    tensors = [TensorInfo(f"t{n}", name, n * 1000, 1000, (1000,), "U8") for n in range(64)]
    placements = tuple(Placement(one, WeightRule(one.name, one.name, 0, 1000)) for one in tensors)
    plan = WeightPlan((), placements, {name: 64_000})

    class Ignore:
        def place(self, placement, data):
            pass

    link = SlowLink(0.02, 1e9)
    loader = FileOrderLoader(SlowFile.opener(link, 1000), 1000, 32)
    began = time.monotonic()
    loader.load(plan, Ignore(), lambda _: None)
    assert 0.02 <= time.monotonic() - began < 0.5
    assert link.counts.num_bytes == 64_000
