"""The choice of loader follows what was measured, with a storage and a clock of our own."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from model_files import parameters, table, tensors, write_model

from rtp_core.loading.auto import AutoLoader, StorageProbe, resident_fraction
from rtp_core.loading.checkpoint import open_checkpoint
from rtp_core.loading.plan import plan_weights
from rtp_core.loading.read_at import LocalFile


class SlowFile(LocalFile):
    """A real file whose reads take `latencies` seconds of a virtual clock, one after another."""

    def __init__(self, path, clock, latencies):
        super().__init__(path)
        self._clock, self._latencies = clock, latencies

    def read_into(self, offset, buffer):
        self._clock.now += self._latencies[len(self._clock.reads) % len(self._latencies)]
        self._clock.reads.append((offset, len(buffer)))
        return super().read_into(offset, buffer)


class Clock:
    def __init__(self):
        self.now, self.reads, self.open_files = 0.0, [], 0

    def __call__(self):
        return self.now


def auto(resident, latencies):
    clock = Clock()
    loader = AutoLoader(lambda path: SlowFile(path, clock, latencies), lambda _: resident, clock)
    return loader, clock


MS = 0.001


@pytest.mark.parametrize(
    ("resident", "latencies", "choice"),
    [
        (1.0, [20 * MS], "mmap"),
        (0.9, [20 * MS], "mmap"),
        (0.89, [20 * MS], "file_order"),
        (0.0, [0.1 * MS], "mmap"),
        (0.0, [0.5 * MS], "mmap"),
        (0.0, [0.6 * MS], "file_order"),
        (0.0, [0.0] * 6 + [5 * MS, 5 * MS], "file_order"),
        (0.0, [0.0] * 7 + [5 * MS], "mmap"),
    ],
)
def test_cached_or_quick_files_are_mapped_and_slow_ones_streamed(
    tmp_path, caplog, resident, latencies, choice
):
    caplog.set_level(logging.INFO, "rtp.loading")
    source = tensors()
    plan = plan_weights(table(), open_checkpoint(write_model(tmp_path, source)))
    loader, _ = auto(resident, latencies)
    from rtp_core.loading.load import load_weights

    found, stats = load_weights(plan, loader, "cpu", lambda _: None)
    assert stats.strategy == choice
    assert f"loader={choice} resident={resident:.2f} latency_ms=" in caplog.text
    for name, expected in parameters(source).items():
        assert torch.equal(found[name], expected)


def test_a_resident_file_is_not_read_to_find_out(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes(10**6))
    loader, clock = auto(0.95, [1.0])
    assert loader.probe(str(path), 10**6) == StorageProbe(0.95, 0.0)
    assert clock.reads == []


@pytest.mark.parametrize("size", [1, 100, 4096, 10**6])
def test_probes_are_small_scattered_and_inside_the_file(tmp_path, size):
    path = tmp_path / "x"
    path.write_bytes(bytes(size))
    loader, clock = auto(0.0, [2 * MS])
    assert loader.probe(str(path), size).latency_s == pytest.approx(2 * MS)
    assert all(0 <= offset <= size - length for offset, length in clock.reads)
    assert sum(length for _, length in clock.reads) <= 64 * 1024
    if size > 10**5:
        assert len({offset for offset, _ in clock.reads}) == len(clock.reads)


def test_the_largest_file_is_probed(tmp_path):
    plan = plan_weights(table(), open_checkpoint(write_model(tmp_path, tensors(), shards=3)))
    asked = []

    def resident(path):
        asked.append(str(path))
        return 1.0

    AutoLoader(resident=resident).load(plan, _Nothing(), lambda _: None)
    assert asked == [max(plan.file_bytes, key=plan.file_bytes.get)]


class _Nothing:
    def place(self, placement, data):
        pass


class TestResidentFraction:
    def test_a_file_just_written_is_in_memory(self, tmp_path):
        path = tmp_path / "x"
        path.write_bytes(bytes(10**6))
        assert resident_fraction(path) == 1.0

    def test_a_file_dropped_from_memory_is_not(self, tmp_path):
        path = tmp_path / "x"
        path.write_bytes(os.urandom(10**6))
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        found = resident_fraction(path)
        if found == 1.0:
            pytest.skip("this file system keeps its files in memory")
        assert found < 0.5

    def test_an_empty_file_is_nowhere(self, tmp_path):
        path = tmp_path / "x"
        path.write_bytes(b"")
        assert resident_fraction(path) == 0.0

    def test_without_permission_to_write_the_kernel_does_not_tell(self, tmp_path, monkeypatch):
        path = tmp_path / "x"
        path.write_bytes(bytes(5000))
        monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
        assert resident_fraction(path) == 0.0
