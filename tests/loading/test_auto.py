"""The choice of loader follows what was measured, with a storage and a clock of our own."""

from __future__ import annotations

import logging
import os
import re
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from model_files import parameters, table, tensors, write_model

from rtp_core.loading.auto import AutoLoader
from rtp_core.loading.checkpoint import open_checkpoint
from rtp_core.loading.file_system import file_system
from rtp_core.loading.plan import plan_weights
from rtp_core.loading.read_at import LocalFile
from rtp_core.loading.residency import resident_fraction
from rtp_core.loading.storage import StorageProbe


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
    probe = loader.probe({str(path): 10**6})
    assert (probe.resident_fraction, probe.latency_s) == (0.95, 0.0)
    assert clock.reads == []


@pytest.mark.parametrize("size", [1, 100, 4096, 10**6])
def test_probes_are_small_scattered_and_inside_the_file(tmp_path, size):
    path = tmp_path / "x"
    path.write_bytes(bytes(size))
    loader, clock = auto(0.0, [0.2 * MS])
    assert loader.probe({str(path): size}).latency_s == pytest.approx(0.2 * MS)
    assert all(0 <= offset <= size - length for offset, length in clock.reads)
    assert sum(length for _, length in clock.reads) <= 64 * 1024
    if size > 10**5:
        assert len({offset for offset, _ in clock.reads}) == len(clock.reads)


def test_storage_that_was_slow_twice_is_not_asked_again(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes(10**6))
    loader, clock = auto(0.0, [20 * MS])
    assert loader.probe({str(path): 10**6}).latency_s == pytest.approx(20 * MS)
    assert len(clock.reads) == 2


def test_files_count_by_their_bytes(tmp_path):
    sizes = {str(tmp_path / name): size for name, size in (("a", 300), ("b", 100))}
    for name, size in sizes.items():
        Path(name).write_bytes(bytes(size))
    shares = {"a": 1.0, "b": 0.0}
    probe = AutoLoader(resident=lambda path: shares[path.name]).probe(sizes)
    assert probe.resident_fraction == 0.75
    shares["b"] = None
    assert (
        AutoLoader(resident=lambda path: shares[path.name]).probe(sizes).resident_fraction is None
    )


@pytest.mark.parametrize(
    ("device", "probe", "choice", "words"),
    [
        ("cpu", StorageProbe(1.0, 0.0, "ext4"), "mmap", "100% of pages in memory, on ext4"),
        (
            "cpu",
            StorageProbe(0.0, 1e-4, "ext4"),
            "mmap",
            "0% .*, a small read took 0.10 ms, on",
        ),
        (
            "cpu",
            StorageProbe(0.0, 1e-4, "fuse.gcsfuse"),
            "file_order",
            "gcsfuse, 32 advised reads of",
        ),
        ("cpu", StorageProbe(0.0, 2e-3, "ext4"), "file_order", "took 2.00 ms"),
        ("cpu", StorageProbe(None, 1e-5, "nfs4"), "mmap", "pages in memory: unknown, a small read"),
        ("cuda", StorageProbe(1.0, 0.0, "nfs4"), "file_order", "12 buffered reads of 16 MiB"),
        ("cuda", StorageProbe(0.0, 1e-4, "ext4"), "file_order", "16 direct reads of 8 MiB"),
        ("cuda", StorageProbe(None, 1e-5, "ext4"), "file_order", "12 buffered reads of 16 MiB"),
        ("cuda", StorageProbe(None, 1e-4, "ext4"), "file_order", "16 direct reads of 8 MiB"),
        ("cuda", StorageProbe(0.0, 1e-4, "nfs"), "file_order", "32 advised reads of 4 MiB"),
    ],
)
def test_the_loader_follows_device_and_storage(device, probe, choice, words):
    assert probe.choice(device) == choice
    assert re.search(words, probe.reason(device))


MOUNTS = """\
22 1 0:20 / / rw,relatime - ext4 /dev/root rw
30 22 0:30 / /mnt/models rw - nfs4 host:/x rw
31 30 0:31 / /mnt/models/with\\040blank rw shared:1 - fuse.gcsfuse bucket rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/x", "ext4"),
        ("/mnt/modelsx/a", "ext4"),
        ("/mnt/models/a/b.safetensors", "nfs4"),
        ("/mnt/models/with blank/b", "fuse.gcsfuse"),
    ],
)
def test_a_path_lies_on_the_deepest_mount_above_it(tmp_path, path, kind):
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS)
    assert file_system(Path(path), table) == kind
    assert file_system(Path(path), tmp_path / "none") == ""


def test_this_machine_knows_its_own_file_systems(tmp_path):
    assert file_system(tmp_path)
    assert file_system(Path("/proc/self/mountinfo")) == "proc"


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
        assert resident_fraction(path) is None

    def test_without_permission_to_write_the_kernel_does_not_tell(self, tmp_path, monkeypatch):
        path = tmp_path / "x"
        path.write_bytes(bytes(5000))
        monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
        assert resident_fraction(path) is None
