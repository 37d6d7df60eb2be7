"""Loaders place the same bytes; the file-order loader also keeps its promises to the storage."""

from __future__ import annotations

import errno
import random
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from model_files import parameters, table, tensors, write_gguf, write_model

from rtp_core.api import ParameterSpec, Placement, TensorInfo, WeightPlan, WeightRule
from rtp_core.errors import WeightLoadError
from rtp_core.loading.auto import AutoLoader
from rtp_core.loading.blocks import MAX_GAP_BYTES
from rtp_core.loading.checkpoint import open_checkpoint
from rtp_core.loading.file_order import FileOrderLoader
from rtp_core.loading.load import load_weights
from rtp_core.loading.mmap_loader import MmapLoader
from rtp_core.loading.plan import plan_weights
from rtp_core.loading.read_at import LocalFile
from rtp_core.loading.sink import TensorSink

LOADERS = {
    "mmap": MmapLoader,
    "file_order": FileOrderLoader,
    "small reads": lambda: FileOrderLoader(read_bytes=1000, in_flight=3),
    "auto": AutoLoader,
}


def ignore(_):
    pass


# -- whole models ----------------------------------------------------------------------------


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("stored", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("run", ["float32", "bfloat16"])
def test_parameters_are_the_tensors_converted(tmp_path, loader, stored, run):
    dtype = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16,
             "BF16": torch.bfloat16}[stored]  # fmt: skip
    source = {name: tensor.to(dtype) for name, tensor in tensors().items()}
    checkpoint = open_checkpoint(write_model(tmp_path, source, shards=3))
    plan = plan_weights(table(dtype=run), checkpoint)
    done = []
    found, stats = load_weights(plan, LOADERS[loader](), "cpu", done.append)
    for name, expected in parameters(source, dtype=run).items():
        assert found[name].dtype == getattr(torch, run)
        assert torch.equal(found[name], expected), name
    assert sum(done) == plan.num_bytes == stats.bytes_read
    assert stats.seconds > 0


@pytest.mark.parametrize("kind", ["Q4_1", "Q8_0", "F16"])
def test_all_loaders_agree_on_a_gguf(tmp_path, kind):
    path = write_gguf(tmp_path / "tiny.gguf", tensors(), quantization=kind)
    plan = plan_weights(table(dtype="bfloat16"), open_checkpoint(path))
    results = [load_weights(plan, make(), "cpu", ignore)[0] for make in LOADERS.values()]
    for other in results[1:]:
        for name, expected in results[0].items():
            assert torch.equal(other[name], expected), name


@pytest.mark.parametrize("loader", LOADERS)
def test_a_file_that_shrank_after_planning(tmp_path, loader):
    checkpoint = open_checkpoint(write_model(tmp_path, tensors()))
    plan = plan_weights(table(), checkpoint)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(WeightLoadError, match=r"truncated|ends here") as caught:
        load_weights(plan, LOADERS[loader](), "cpu", ignore)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("loader", LOADERS)
def test_a_file_that_vanished_after_planning(tmp_path, loader):
    plan = plan_weights(table(), open_checkpoint(write_model(tmp_path, tensors())))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(WeightLoadError, match=r"model\.safetensors: cannot be read: No such file"):
        load_weights(plan, LOADERS[loader](), "cpu", ignore)


def test_no_descriptor_or_thread_is_left(tmp_path):
    plan = plan_weights(table(), open_checkpoint(write_model(tmp_path, tensors(), shards=3)))

    def held():
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    for make in LOADERS.values():
        load_weights(plan, make(), "cpu", ignore)
    before = held()
    for make in LOADERS.values():
        load_weights(plan, make(), "cpu", ignore)
    assert held() == before


# -- the sink --------------------------------------------------------------------------------


def small_plan(rows=(2, 3), columns=4):
    """One parameter filled from two tensors."""
    offset, placements, row = 0, [], 0
    for number, count in enumerate(rows):
        size = 4 * count * columns
        tensor = TensorInfo(f"t{number}", "f", offset, size, (count, columns), "F32")
        placements.append(Placement(tensor, WeightRule(tensor.name, "p", row, count)))
        offset, row = offset + size, row + count
    return WeightPlan(
        (ParameterSpec("p", (row, columns), "float32"),), tuple(placements), {"f": offset}
    )


class TestSink:
    def test_a_tensor_left_out_is_named(self):
        plan = small_plan()
        sink = TensorSink(plan, "cpu")
        sink.place(plan.placements[0], memoryview(bytearray(32)))
        with pytest.raises(WeightLoadError, match="left out p"):
            sink.parameters()

    def test_a_tensor_placed_twice(self):
        plan = small_plan()
        sink = TensorSink(plan, "cpu")
        sink.place(plan.placements[0], memoryview(bytearray(32)))
        with pytest.raises(WeightLoadError, match="t0: placed twice"):
            sink.place(plan.placements[0], memoryview(bytearray(32)))

    @pytest.mark.parametrize("size", [0, 31, 33])
    def test_another_number_of_bytes(self, size):
        plan = small_plan()
        with pytest.raises(WeightLoadError, match=f"t0: {size} bytes arrived, 32 belong"):
            TensorSink(plan, "cpu").place(plan.placements[0], memoryview(bytearray(size)))

    def test_the_buffer_may_be_reused_at_once(self):
        plan = small_plan()
        sink = TensorSink(plan, "cpu")
        buffer = bytearray(48)
        for placement, value in zip(plan.placements, (1.0, 2.0), strict=True):
            size = placement.tensor.num_bytes
            buffer[:size] = torch.full((size // 4,), value).numpy().tobytes()
            sink.place(placement, memoryview(buffer)[:size])
            buffer[:] = bytes(48)
        expected = torch.tensor([1.0] * 8 + [2.0] * 12).view(5, 4)
        assert torch.equal(sink.parameters()["p"], expected)


# -- file order: a storage that watches ------------------------------------------------------


@dataclass
class Storage:
    """Files in memory that record every read; `before` may delay, fail or shorten it."""

    files: dict[str, bytes]
    before: object = None
    reads: list[tuple[str, int, int]] = field(default_factory=list)
    most_at_once: int = 0
    open_files: int = 0
    late_reads: int = 0

    def __post_init__(self):
        self._lock = threading.Lock()
        self._under_way = 0

    def open(self, name):
        self.open_files += 1
        return _File(self, name)

    def enter(self, name, offset, size):
        with self._lock:
            self.reads.append((name, offset, size))
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)
            return len(self.reads) - 1

    def leave(self):
        with self._lock:
            self._under_way -= 1


class _File:
    def __init__(self, storage, name):
        self._storage, self._name, self._closed = storage, name, False

    def read_into(self, offset, buffer):
        number = self._storage.enter(self._name, offset, len(buffer))
        try:
            size = len(buffer)
            if self._storage.before is not None:
                size = self._storage.before(number, offset, size)
            data = self._storage.files[self._name][offset : offset + size]
            buffer[: len(data)] = data
            if self._closed:
                self._storage.late_reads += 1
            return len(data)
        finally:
            self._storage.leave()

    def close(self):
        if not self._closed:
            self._closed = True
            self._storage.open_files -= 1


class Recorder:
    """A sink that keeps copies; `fail_at` makes one placement raise."""

    def __init__(self, fail_at=None):
        self.placed = {}
        self._fail_at = fail_at

    def place(self, placement, data):
        name = placement.tensor.name
        assert name not in self.placed
        if name == self._fail_at:
            raise WeightLoadError("the sink is full", tensor=name)
        self.placed[name] = bytes(data)


def layout(sizes, gaps=None, *, files=1, seed=0):
    """Files of random bytes holding tensors of these sizes, and a plan in shuffled order."""
    shuffle = random.Random(seed)
    gaps = gaps or [0] * len(sizes)
    names = [f"file{number}" for number in range(files)]
    content = {name: bytearray(b"header") for name in names}
    placements, expected = [], {}
    for number, (size, gap) in enumerate(zip(sizes, gaps, strict=True)):
        file = names[number * files // len(sizes)]
        content[file] += shuffle.randbytes(gap)
        data = shuffle.randbytes(size)
        tensor = TensorInfo(f"t{number}", file, len(content[file]), size, (size,), "U8")
        content[file] += data
        expected[tensor.name] = data
        placements.append(Placement(tensor, WeightRule(tensor.name, tensor.name, 0, size)))
    shuffle.shuffle(placements)
    stored = {name: bytes(held) for name, held in content.items()}
    plan = WeightPlan((), tuple(placements), {name: len(held) for name, held in stored.items()})
    return plan, stored, expected


def load(plan, storage, sink=None, *, read_bytes=100, in_flight=4):
    sink = sink or Recorder()
    loader = FileOrderLoader(storage.open, read_bytes, in_flight)
    return loader.load(plan, sink, ignore), sink


@settings(max_examples=150, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 700), min_size=1, max_size=30),
    gaps=st.data(),
    files=st.integers(1, 3),
    read_bytes=st.integers(1, 300),
    in_flight=st.integers(1, 6),
)
def test_every_tensor_arrives_whole_and_every_byte_is_read_once(
    sizes, gaps, files, read_bytes, in_flight
):
    between = gaps.draw(st.lists(st.integers(0, 40), min_size=len(sizes), max_size=len(sizes)))
    plan, stored, expected = layout(sizes, between, files=files)
    storage = Storage(stored)
    stats, sink = load(plan, storage, read_bytes=read_bytes, in_flight=in_flight)
    assert sink.placed == expected
    counts = {name: [0] * len(data) for name, data in stored.items()}
    for name, offset, size in storage.reads:
        assert 0 < size <= read_bytes
        for at in range(offset, offset + size):
            counts[name][at] += 1
    assert all(count <= 1 for held in counts.values() for count in held)
    for placement in plan.placements:
        tensor = placement.tensor
        assert counts[tensor.file][tensor.offset : tensor.offset + tensor.num_bytes] == (
            [1] * tensor.num_bytes
        )
    assert stats.bytes_read == sum(size for _, _, size in storage.reads)
    assert storage.most_at_once <= in_flight
    assert storage.open_files == 0


def test_reads_are_issued_in_file_order():
    plan, stored, _ = layout([50, 500, 20, 20, 20, 300, 5], files=2)
    storage = Storage(stored)
    load(plan, storage, in_flight=1)
    assert storage.reads == sorted(storage.reads)


def test_reads_run_ahead_no_further_than_allowed():
    """A read may start only when all but in_flight - 1 of those before it have been placed."""
    plan, stored, _ = layout([100] * 40)
    landed = []

    class Counting(Recorder):
        def place(self, placement, data):
            super().place(placement, data)
            landed.append(placement)

    def before(number, offset, size):
        place = (offset - len(b"header")) // 100
        ahead.append(place - len(landed))
        return size

    ahead: list[int] = []
    storage = Storage(stored, before)
    FileOrderLoader(storage.open, 100, 5).load(plan, Counting(), ignore)
    assert len(ahead) == 40
    assert max(ahead) <= 5


def test_small_tensors_share_a_read():
    plan, stored, expected = layout([10] * 95)
    storage = Storage(stored)
    _, sink = load(plan, storage)
    assert sink.placed == expected
    assert [size for _, _, size in sorted(storage.reads)] == [100] * 9 + [50]


def test_a_large_hole_is_not_read():
    plan, stored, expected = layout([60, 60], [0, MAX_GAP_BYTES + 1])
    storage = Storage(stored)
    _, sink = load(plan, storage, read_bytes=10**6)
    assert sink.placed == expected
    assert sum(size for _, _, size in storage.reads) == 120


def test_reads_are_under_way_at_the_same_time():
    """Every group of four waits until all four have begun: fewer in flight would time out."""
    plan, stored, _ = layout([100] * 20)
    meeting = threading.Barrier(4, timeout=20)

    def before(number, offset, size):
        meeting.wait()
        return size

    storage = Storage(stored, before)
    load(plan, storage)
    assert storage.most_at_once == 4


def test_partial_reads_are_continued():
    plan, stored, expected = layout([250, 30])
    storage = Storage(stored, lambda number, offset, size: max(1, size // 2))
    assert load(plan, storage)[1].placed == expected


def fail_times(times, outcome):
    """The read at the file's 206th byte fails so many times."""
    left = [times]

    def before(number, offset, size):
        if offset == 206 and left[0] > 0:
            left[0] -= 1
            return outcome()
        return size

    return before


def io_error():
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("outcome", [io_error, lambda: 0], ids=["error", "nothing"])
def test_a_failed_read_is_tried_once_more(outcome):
    plan, stored, expected = layout([300])
    storage = Storage(stored, fail_times(1, outcome))
    assert load(plan, storage)[1].placed == expected


@pytest.mark.parametrize(
    ("outcome", "reason"), [(io_error, "Input/output error"), (lambda: 0, "the file ends here")]
)
def test_a_second_failure_names_file_and_offset(outcome, reason):
    plan, stored, _ = layout([100] * 8)
    storage = Storage(stored, fail_times(2, outcome))
    with pytest.raises(WeightLoadError, match=f"file0: t2: reading at byte 206 failed.*{reason}"):
        load(plan, storage)
    assert storage.open_files == 0


def reading_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("rtp-read")]


@pytest.mark.parametrize("where", ["reader", "sink", "progress", "open"])
def test_an_error_anywhere_surfaces_and_leaves_nothing_behind(where):
    plan, stored, _ = layout([100] * 30, files=3)
    slow = threading.Event()

    def before(number, offset, size):
        if where == "reader" and number == 5:
            raise RuntimeError("reader")
        slow.wait(0.002)
        return size

    class OpenFails(Storage):
        def open(self, name):
            if where == "open" and name == "file1":
                raise PermissionError(13, "Permission denied", name)
            return super().open(name)

    def progress(_):
        if where == "progress":
            raise RuntimeError("progress")

    storage = OpenFails(stored, before)
    sink = Recorder(fail_at="t7" if where == "sink" else None)
    with pytest.raises((RuntimeError, WeightLoadError, PermissionError)):
        FileOrderLoader(storage.open, 100, 4).load(plan, sink, progress)
    assert storage.open_files == 0
    assert storage.late_reads == 0
    assert reading_threads() == []


def test_an_error_does_not_wait_for_the_rest_of_the_file():
    plan, stored, _ = layout([100] * 200)
    storage = Storage(stored)
    with pytest.raises(WeightLoadError, match="the sink is full"):
        load(plan, storage, Recorder(fail_at="t3"))
    assert len(storage.reads) <= 8


def test_a_tensor_used_twice_is_read_once():
    plan, stored, expected = layout([80, 90, 40])
    again = [
        Placement(one.tensor, WeightRule(one.tensor.name, "copy", 0, 1)) for one in plan.placements
    ]
    twice = WeightPlan((), (*plan.placements, *again), plan.file_bytes)
    placed = []

    class Both:
        def place(self, placement, data):
            placed.append((placement.rule.destination, placement.tensor.name, bytes(data)))

    storage = Storage(stored)
    load(twice, storage, Both())
    assert len(placed) == 6
    assert all(data == expected[name] for _, name, data in placed)
    assert sum(size for _, _, size in storage.reads) == 210


def test_a_local_file_reads_and_closes(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes(range(100)))
    with LocalFile(str(path)) as file:
        buffer = bytearray(10)
        assert file.read_into(95, memoryview(buffer)) == 5
        assert bytes(buffer[:5]) == bytes(range(95, 100))
        assert file.read_into(100, memoryview(buffer)) == 0
    file.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.read_into(0, memoryview(buffer))
