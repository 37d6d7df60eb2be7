"""The ring between storage and destinations: bounded, and never reused too early."""

from __future__ import annotations

import errno
import os
import random
import sys
import threading
import time
import tracemalloc
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from model_files import parameters, table, tensors, write_gguf, write_model

from rtp_core.api import ParameterSpec, Placement, TensorInfo, WeightPlan, WeightRule
from rtp_core.errors import WeightLoadError
from rtp_core.loading.advised_file import WINDOW_BYTES, AdvisedFile
from rtp_core.loading.blocks import MAX_GAP_BYTES, Cutting, file_blocks, plan_blocks
from rtp_core.loading.checkpoint import open_checkpoint
from rtp_core.loading.direct_file import ALIGNMENT, DirectFile
from rtp_core.loading.file_order import RING_BYTES, FileOrderLoader
from rtp_core.loading.load import load_weights
from rtp_core.loading.mmap_loader import MmapLoader
from rtp_core.loading.plan import plan_weights
from rtp_core.loading.read_at import LocalFile
from rtp_core.loading.readers import SLOTS_A_THREAD
from rtp_core.loading.sink import TensorSink
from rtp_core.loading.transfer import HostTransfer


def ignore(_):
    pass


# -- blocks ------------------------------------------------------------------------------------


def laid_out(sizes, gaps, repeats):
    """Placements behind one another; some tensors have two of them."""
    at, made = 7, []
    for number, (size, gap, twice) in enumerate(zip(sizes, gaps, repeats, strict=True)):
        at += gap
        tensor = TensorInfo(f"t{number}", "f", at, size, (size,), "U8")
        for copy in range(1 + twice):
            made.append(Placement(tensor, WeightRule(tensor.name, f"p{copy}", number, size)))
        at += size
    return made


@settings(max_examples=300, deadline=None)
@given(
    tensors=st.lists(
        st.tuples(
            st.integers(0, 600),
            st.sampled_from([0, 0, 0, 3, MAX_GAP_BYTES + 1]),
            st.booleans(),
            st.integers(1, 90),
        ),
        min_size=1,
        max_size=20,
    ),
    block_bytes=st.integers(1, 300),
    alignment=st.sampled_from([1, 1, 16]),
)
def test_blocks_hold_every_byte_once_and_cut_only_between_units(tensors, block_bytes, alignment):
    sizes, gaps, twice, units = zip(*tensors, strict=True)
    placements = laid_out(sizes, gaps, twice)

    def unit(placement):
        return units[int(placement.tensor.name[1:])]

    blocks = list(file_blocks(placements, Cutting(unit, block_bytes, alignment)))
    covered = {id(one): [0] * one.tensor.num_bytes for one in placements}
    for block in blocks:
        for piece in block.pieces:
            tensor = piece.placement.tensor
            assert block.begin <= tensor.offset + piece.begin
            assert tensor.offset + piece.end <= block.end
            assert piece.begin % unit(piece.placement) == 0
            assert piece.end % unit(piece.placement) == 0 or piece.end == tensor.num_bytes
            for at in range(piece.begin, piece.end):
                covered[id(piece.placement)][at] += 1
    assert all(count == 1 for one in covered.values() for count in one)
    full = [block for block in blocks if block.pieces and block.end > block.begin]
    assert full == sorted(full, key=lambda block: block.begin)
    assert all(one.end <= two.begin for one, two in pairwise(full))
    for block in full:
        whole = max(
            min(unit(one.placement), one.placement.tensor.num_bytes) for one in block.pieces
        )
        assert block.end - block.begin <= max(block_bytes, 2 * whole + 90)
    empty = [one for one in placements if not one.tensor.num_bytes]
    assert sum(block.begin == block.end for block in blocks) == len(empty)


def test_several_files_take_turns_each_front_to_back():
    placements = []
    for file in "abc":
        tensor = TensorInfo(f"{file}.t", file, 0, 400, (400,), "U8")
        placements.append(Placement(tensor, WeightRule(tensor.name, file, 0, 400)))
    plan = WeightPlan((), tuple(placements), dict.fromkeys("abc", 400))
    order = [
        (block.file, block.begin)
        for block in plan_blocks(plan, Cutting(lambda _: 1, 100), files_at_once=2)
    ]
    assert order[:4] == [("a", 0), ("b", 0), ("a", 100), ("b", 100)]
    assert order[-4:] == [("c", 0), ("c", 100), ("c", 200), ("c", 300)]


# -- a device that is late ---------------------------------------------------------------------


class LateTransfer(HostTransfer):
    """Takes bytes out of buffers at the very last moment: when a fence is waited for."""

    queues: ClassVar[list] = []

    def __init__(self):
        self._queue = []
        LateTransfer.queues.append(self._queue)

    def submit(self, work):
        self._queue.append(work)

    def fence(self):
        return partial(self._run, len(self._queue))

    def _run(self, _count):
        while self._queue:
            self._queue.pop(0)()


def on_a_late_device(monkeypatch):
    """Destinations refuse to be read into: as on a device, all bytes go through the ring."""
    for kind in ("AsIs", "Gathered"):
        monkeypatch.setattr(f"rtp_core.loading.landing.{kind}.room", lambda self, begin, end: None)


@pytest.mark.parametrize("read_bytes", [64, 1000, 10**6])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_a_slot_is_not_reused_before_its_bytes_are_out(tmp_path, monkeypatch, read_bytes, stored):
    source = {name: tensor.to(stored) for name, tensor in tensors().items()}
    plan = plan_weights(table(), open_checkpoint(write_model(tmp_path, source, shards=3)))
    on_a_late_device(monkeypatch)
    sink = TensorSink(plan, "cpu", transfers=LateTransfer)
    FileOrderLoader(read_bytes=read_bytes, in_flight=3).load(plan, sink, ignore)
    found = sink.parameters()
    for name, expected in parameters(source).items():
        assert torch.equal(found[name], expected), name


def test_a_ring_that_waits_for_no_fence_is_found_out(tmp_path, monkeypatch):
    """The test above can fail: without fences weights are overwritten."""
    source = tensors()
    plan = plan_weights(table(), open_checkpoint(write_model(tmp_path, source)))
    on_a_late_device(monkeypatch)
    monkeypatch.setattr("rtp_core.loading.slots.Slot.wait", lambda slot: None)
    LateTransfer.queues.clear()
    sink = TensorSink(plan, "cpu", transfers=LateTransfer)
    FileOrderLoader(read_bytes=1000, in_flight=1).load(plan, sink, ignore)
    for queue in LateTransfer.queues:
        for work in queue:
            work()
    found = sink.parameters()
    expected = parameters(source)
    assert not all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("kind", ["Q4_1", "Q8_0"])
def test_quantized_files_reach_a_late_device_whole(tmp_path, monkeypatch, kind):
    path = write_gguf(tmp_path / "tiny.gguf", tensors(), quantization=kind)
    plan = plan_weights(table(dtype="bfloat16"), open_checkpoint(path))
    expected, _ = load_weights(plan, MmapLoader(), "cpu", ignore)
    on_a_late_device(monkeypatch)
    sink = TensorSink(plan, "cpu", transfers=LateTransfer)
    FileOrderLoader(read_bytes=5000, in_flight=3).load(plan, sink, ignore)
    for name, one in sink.parameters().items():
        assert torch.equal(one, expected[name]), name


# -- memory ------------------------------------------------------------------------------------


def one_large(folder, dtype, num_rows=24 * 2**10, columns=256):
    """A plan of one large tensor among small ones, and its file."""
    shuffle = random.Random(0)
    path = folder / "weights"
    item = {"F32": 4, "BF16": 2}[dtype]
    size = num_rows * columns * item
    path.write_bytes(shuffle.randbytes(1000) + shuffle.randbytes(size))
    made = [
        TensorInfo(f"small{n}", str(path), n * 100, 100, (100 // item,), dtype) for n in range(9)
    ]
    made.append(TensorInfo("large", str(path), 1000, size, (num_rows, columns), dtype))
    plan = WeightPlan(
        tuple(ParameterSpec(one.name, one.shape, "bfloat16") for one in made),
        tuple(Placement(one, WeightRule(one.name, one.name, 0, one.shape[0])) for one in made),
        {str(path): path.stat().st_size},
    )
    return plan, path


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_memory_beside_the_parameters_is_the_ring(tmp_path, dtype):
    """Allocations are counted by Python itself; torch's own are of destinations only."""
    plan, _ = one_large(tmp_path, dtype)
    read_bytes, in_flight = 2**19, 4
    ring = SLOTS_A_THREAD * in_flight * read_bytes
    loader = FileOrderLoader(read_bytes=read_bytes, in_flight=in_flight)
    sink = TensorSink(plan, "cpu")
    tracemalloc.start()
    stats = loader.load(plan, sink, ignore)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert stats.peak_bytes <= ring
    assert peak <= 1.05 * ring
    if dtype == "BF16":  # read right into the destination but for a block with the small ones
        assert stats.peak_bytes <= SLOTS_A_THREAD * read_bytes
    else:
        assert stats.peak_bytes >= read_bytes


def test_bytes_of_the_same_dtype_are_read_into_the_destination(tmp_path):
    plan, path = one_large(tmp_path, "BF16", num_rows=4096)
    sink = TensorSink(plan, "cpu")
    large = sink._parameters["large"]
    lowest, highest = large.data_ptr(), large.data_ptr() + large.nbytes
    inside = []

    class Watching(LocalFile):
        def read_into(self, offset, buffer):
            at = torch.frombuffer(buffer, dtype=torch.uint8).data_ptr()
            inside.append((lowest <= at < highest, len(buffer)))
            return super().read_into(offset, buffer)

    FileOrderLoader(Watching.open, 2**17, 4).load(plan, sink, ignore)
    direct = sum(size for is_inside, size in inside if is_inside)
    assert direct >= large.nbytes - 2**17
    assert large.view(torch.uint8).view(-1).numpy().tobytes() == path.read_bytes()[1000:]


def test_the_ring_is_bounded_whatever_is_asked_for():
    loader = FileOrderLoader(read_bytes=64 * 2**20, in_flight=500)
    reading = loader._reading
    assert SLOTS_A_THREAD * reading.threads * reading.slot_bytes <= RING_BYTES


# -- direct reads ------------------------------------------------------------------------------


class Aligned(DirectFile):
    """Refuses nothing, and notes what was asked for."""

    asked: ClassVar[list] = []

    def read_into(self, offset, buffer):
        address = torch.frombuffer(buffer, dtype=torch.uint8).data_ptr()
        Aligned.asked.append((offset % ALIGNMENT, len(buffer) % ALIGNMENT, address % ALIGNMENT))
        return super().read_into(offset, buffer)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_direct_reads_are_aligned_and_give_the_same_weights(tmp_path, stored):
    source = {name: tensor.to(stored) for name, tensor in tensors().items()}
    plan = plan_weights(table(), open_checkpoint(write_model(tmp_path, source, shards=2)))
    Aligned.asked.clear()
    loader = FileOrderLoader(Aligned.open, 8 * ALIGNMENT, 3, alignment=ALIGNMENT)
    found, stats = load_weights(plan, loader, "cpu", ignore)
    for name, expected in parameters(source).items():
        assert torch.equal(found[name], expected), name
    assert set(Aligned.asked) == {(0, 0, 0)}
    total = sum(plan.file_bytes.values())
    assert plan.num_bytes <= stats.bytes_read <= total + len(Aligned.asked) * 2 * ALIGNMENT


def test_storage_that_knows_no_direct_reads_is_read_through_the_cache(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(bytes(range(256)) * 64)
    opened = os.open

    def refusing(name, flags, *rest, **keywords):
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument", name)
        return opened(name, flags, *rest, **keywords)

    monkeypatch.setattr(os, "open", refusing)
    file = DirectFile.open(str(path))
    assert not file.is_direct
    buffer = HostTransfer().buffer(ALIGNMENT).numpy().data
    assert file.read_into(ALIGNMENT, buffer) == ALIGNMENT
    assert bytes(buffer) == path.read_bytes()[ALIGNMENT : 2 * ALIGNMENT]
    file.close()


def test_a_direct_read_that_is_refused_goes_through_the_cache(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(os.urandom(3 * ALIGNMENT + 5))
    file = DirectFile.open(str(path))
    if not file.is_direct:
        pytest.skip("this file system knows no direct reads")
    preadv, refused = os.preadv, []

    def refusing(descriptor, buffers, offset):
        if descriptor == file._descriptor:
            refused.append(offset)
            raise OSError(errno.EINVAL, "Invalid argument")
        return preadv(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", refusing)
    buffer = HostTransfer().buffer(2 * ALIGNMENT).numpy().data
    assert file.read_into(2 * ALIGNMENT, buffer) == ALIGNMENT + 5  # up to the end of the file
    assert bytes(buffer[: ALIGNMENT + 5]) == path.read_bytes()[2 * ALIGNMENT :]
    assert refused == [2 * ALIGNMENT]
    file.close()
    file.close()


def test_errors_of_the_disk_are_not_taken_for_a_refusal(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(bytes(ALIGNMENT))

    def broken(descriptor, buffers, offset):
        raise OSError(errno.EIO, "Input/output error")

    file = DirectFile.open(str(path))
    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(OSError, match="Input/output error"):
        file.read_into(0, HostTransfer().buffer(ALIGNMENT).numpy().data)
    file.close()


def test_all_of_an_advised_read_is_asked_for_before_it_waits(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(os.urandom(5 * WINDOW_BYTES))
    calls = []
    advise, preadv = os.posix_fadvise, os.preadv
    monkeypatch.setattr(
        os, "posix_fadvise", lambda fd, *rest: calls.append(rest) or advise(fd, *rest)
    )
    monkeypatch.setattr(os, "preadv", lambda *rest: calls.append("read") or preadv(*rest))
    with AdvisedFile.open(str(path)) as file:
        buffer = bytearray(3 * WINDOW_BYTES)
        assert file.read_into(100, memoryview(buffer)) == len(buffer)
    assert bytes(buffer) == path.read_bytes()[100 : 100 + len(buffer)]
    wanted = [(100 + n * WINDOW_BYTES, WINDOW_BYTES, os.POSIX_FADV_WILLNEED) for n in range(3)]
    assert calls == [*wanted, "read"]


# -- storage that stalls -----------------------------------------------------------------------


def test_storage_that_stops_answering_ends_the_load(tmp_path):
    plan, path = one_large(tmp_path, "F32", num_rows=2048)
    release, stuck = threading.Event(), []

    class Stuck(LocalFile):
        def read_into(self, offset, buffer):
            if offset > 10**6:
                stuck.append(offset)
                release.wait(30)
            return super().read_into(offset, buffer)

    began = time.monotonic()
    try:
        with pytest.raises(WeightLoadError, match="large: the storage stalled: no byte") as caught:
            load_weights(plan, FileOrderLoader(Stuck.open, 2**17, 4, stall_s=0.3), "cpu", ignore)
        assert time.monotonic() - began < 5
    finally:
        release.set()
    assert str(path) in str(caught.value)
    assert "loading.stall_timeout_s" in str(caught.value)
    assert stuck


def test_storage_that_is_slow_but_moves_is_waited_for(tmp_path):
    plan, path = one_large(tmp_path, "BF16", num_rows=64)

    class Trickle(LocalFile):
        def read_into(self, offset, buffer):
            time.sleep(0.02)
            return super().read_into(offset, buffer[:1000])

    loader = FileOrderLoader(Trickle.open, 2**17, 1, stall_s=0.2)
    found, stats = load_weights(plan, loader, "cpu", ignore)
    assert stats.seconds > 0.4
    assert found["large"].view(torch.uint8).view(-1).numpy().tobytes() == path.read_bytes()[1000:]
