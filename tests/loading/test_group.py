"""Ranks that load together read each byte once, hold what they would alone, and fail together."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from group_ranks import ThreadRanks
from model_files import CONFIG, table, tensors, write_gguf, write_model

from rtp_core.errors import WeightLoadError
from rtp_core.loading.checkpoint import open_checkpoint
from rtp_core.loading.group.loader import GroupLoader
from rtp_core.loading.group.rounds import rounds
from rtp_core.loading.load import load_weights
from rtp_core.loading.mmap_loader import MmapLoader
from rtp_core.loading.plan import plan_weights
from rtp_core.loading.rank_plan import plan_for
from rtp_core.loading.read_at import LocalFile
from rtp_core.loading.shares import Share

PROGRAM = Path(__file__).with_name("group_ranks.py")
KV4 = {"num_key_value_heads": 4}


def ignore(_):
    pass


def plans_of(plan, size):
    return [plan_for(plan, Share(rank, size, CONFIG["head_dim"])) for rank in range(size)]


def together(plans, make, progress=ignore):
    """Each rank's outcome: (parameters, stats), or what it raised."""
    size = len(plans)

    def run(ranks):
        try:
            return load_weights(plans[ranks.rank], make(ranks), "cpu", progress)
        except Exception as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, ThreadRanks.make(size)))


def reading_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("rtp-read")]


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    size=st.sampled_from([1, 2, 4]),
    kv_heads=st.sampled_from([1, 2, 4]),
    block_bytes=st.sampled_from([500, 3000, 20_000, 10**6]),
    ahead=st.integers(0, 3),
    shards=st.sampled_from([1, 3]),
)
def test_ranks_hold_what_they_would_alone_and_read_each_byte_once(
    tmp_path, size, kv_heads, block_bytes, ahead, shards
):
    config = {"num_key_value_heads": kv_heads}
    source = {name: one.bfloat16() for name, one in tensors(config).items()}
    for old in tmp_path.glob("*.json"):
        old.unlink()
    for old in tmp_path.glob("*.safetensors"):
        old.unlink()
    checkpoint = open_checkpoint(write_model(tmp_path, source, config, shards=shards))
    plan = plan_weights(table(config, dtype="bfloat16"), checkpoint)
    plans = plans_of(plan, size)
    outcomes = together(
        plans, lambda ranks: GroupLoader(ranks, plans, block_bytes=block_bytes, ahead=ahead)
    )
    for part, (found, _) in zip(plans, outcomes, strict=True):
        alone, _ = load_weights(part, MmapLoader(), "cpu", ignore)
        for name, wanted in alone.items():
            assert torch.equal(found[name], wanted), name
    assert sum(stats.bytes_read for _, stats in outcomes) == plan.num_bytes
    if size > 1 and block_bytes <= 3000:
        shares = [stats.bytes_read / plan.num_bytes for _, stats in outcomes]
        assert max(shares) < 1.5 / size  # nobody reads much more than his part


def test_rows_of_one_rank_are_sent_to_nobody_else(tmp_path):
    checkpoint = open_checkpoint(write_model(tmp_path, tensors(KV4), KV4))
    plans = plans_of(plan_weights(table(KV4), checkpoint), 2)
    received = [0, 0]
    own = [0, 0]
    for one in rounds(plans, 2000):
        for rank in (0, 1):
            received[rank] += sum(one.received(rank))
            if rank < len(one.blocks):
                own[rank] += one.messages[rank][rank].num_bytes
    for rank, plan in enumerate(plans):
        assert received[rank] + own[rank] == plan.num_bytes


@pytest.mark.parametrize("kind", ["Q8_0", "F16"])
def test_a_gguf_with_permuted_heads(tmp_path, kind):
    config = {"intermediate_size": 128}
    path = write_gguf(tmp_path / "tiny.gguf", tensors(config), config, quantization=kind)
    plans = plans_of(plan_weights(table(config), open_checkpoint(path)), 2)
    outcomes = together(plans, lambda ranks: GroupLoader(ranks, plans, block_bytes=700))
    for part, (found, _) in zip(plans, outcomes, strict=True):
        alone, _ = load_weights(part, MmapLoader(), "cpu", ignore)
        assert all(torch.equal(found[name], alone[name]) for name in alone)


class Whole:
    """A sink that takes whole tensors."""

    def __init__(self):
        self.placed = {}

    def place(self, placement, data):
        self.placed[placement.tensor.name, placement.rule.row_offset] = bytes(data)


def test_a_sink_of_whole_tensors(tmp_path):
    plan = plan_weights(table(), open_checkpoint(write_model(tmp_path, tensors())))
    plans = plans_of(plan, 2)
    sinks = [Whole(), Whole()]

    def run(ranks):
        loader = GroupLoader(ranks, plans, block_bytes=500)
        return loader.load(plans[ranks.rank], sinks[ranks.rank], ignore)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, ThreadRanks.make(2)))
    content = (tmp_path / "model.safetensors").read_bytes()
    for part, sink in zip(plans, sinks, strict=True):
        assert len(sink.placed) == len(part.placements)
        for one in part.placements:
            data = sink.placed[one.tensor.name, one.rule.row_offset]
            assert data == content[one.tensor.offset : one.tensor.offset + one.tensor.num_bytes]


class TestFaults:
    @pytest.fixture
    def plans(self, tmp_path):
        plan = plan_weights(table(), open_checkpoint(write_model(tmp_path, tensors())))
        return plans_of(plan, 2)

    def outcomes(self, plans, open_file=LocalFile.open, progress=ignore, **keywords):
        began = time.monotonic()
        found = together(
            plans,
            lambda ranks: GroupLoader(
                ranks, plans, lambda path: open_file(path, ranks.rank), block_bytes=2000, **keywords
            ),
            progress,
        )
        assert time.monotonic() - began < 10
        return found

    def test_a_bad_disk_of_one_rank_is_an_error_of_all(self, plans):
        class Broken(LocalFile):
            def read_into(self, offset, buffer):
                if offset > 30_000:
                    raise OSError(5, "Input/output error")
                return super().read_into(offset, buffer)

        def opened(path, rank):
            return Broken(path) if rank == 1 else LocalFile(path)

        other, broken = self.outcomes(plans, opened)
        assert isinstance(broken, WeightLoadError)
        assert "Input/output error" in str(broken)
        assert isinstance(other, WeightLoadError)
        assert "rank 1 could not load: " in str(other)
        assert "model.safetensors" in str(other)
        assert reading_threads() == []

    def test_storage_that_stalls_on_one_rank(self, plans):
        release = threading.Event()

        class Stuck(LocalFile):
            def read_into(self, offset, buffer):
                if offset > 30_000:
                    release.wait(20)
                return super().read_into(offset, buffer)

        def opened(path, rank):
            return Stuck(path) if rank == 0 else LocalFile(path)

        try:
            stuck, other = self.outcomes(plans, opened, stall_s=0.5)
        finally:
            release.set()
        assert "stalled: no byte came for 0.5 s" in str(stuck)
        assert "rank 0 could not load: " in str(other)

    def test_an_error_of_a_sink_or_of_progress(self, plans):
        calls = []

        def progress(_):
            calls.append(threading.get_ident())
            if calls.count(threading.get_ident()) == 5 and calls[0] == threading.get_ident():
                raise ValueError("stop")

        outcomes = self.outcomes(plans, lambda path, rank: LocalFile(path), progress)
        assert sorted(type(one).__name__ for one in outcomes) == ["ValueError", "WeightLoadError"]
        assert any("could not load: stop" in str(one) for one in outcomes)

    def test_a_rank_that_is_gone(self, plans):
        def run(ranks):
            if ranks.rank == 1:
                ranks.leave()
                return None
            with pytest.raises(WeightLoadError, match="another rank was lost") as caught:
                load_weights(plans[0], GroupLoader(ranks, plans), "cpu", ignore)
            return str(caught.value)

        with ThreadPoolExecutor(2) as pool:
            assert "start all ranks again" in next(iter(pool.map(run, ThreadRanks.make(2))))

    def test_ranks_that_see_different_models(self, plans, tmp_path):
        longer = {**tensors(), "model.norm.weight": torch.randn(64)}
        other = plan_weights(table(), open_checkpoint(write_model(tmp_path / "b", longer)))
        others = [plans_of(other, 2)[0]] * 2

        def run(ranks):
            mine = plans if ranks.rank == 0 else others
            with pytest.raises(WeightLoadError, match="rank 1 sees other files"):
                load_weights(mine[ranks.rank], GroupLoader(ranks, mine), "cpu", ignore)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(run, ThreadRanks.make(2)))


# -- processes ---------------------------------------------------------------------------------


def processes(folder, size, mode):
    """What each says, None for one that died; all end within a minute."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(PROGRAM)]
    started = [
        subprocess.Popen(
            [*command, str(rank), str(size), str(folder), mode],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(size)
    ]
    found = []
    try:
        for one in started:
            out, error = one.communicate(timeout=90)
            lines = [line for line in out.splitlines() if line.startswith("{")]
            assert lines or one.returncode == 9, error
            found.append(json.loads(lines[-1]) if lines else None)
    finally:
        for one in started:
            one.kill()
    return found


@pytest.fixture
def model(tmp_path):
    write_model(tmp_path / "model", tensors(), shards=2)
    return tmp_path


@pytest.mark.parametrize("size", [2, 4])
def test_processes_read_the_files_once_between_them(model, size):
    plan = plan_weights(table(), open_checkpoint(model / "model"))
    found = processes(model, size, "sound")
    assert all(one["equal"] and one["total"] for one in found)
    total = sum(one["read"] for one in found)
    assert abs(total - plan.num_bytes) <= 0.01 * plan.num_bytes


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("killed", "another rank was lost"),
        ("broken", "rank 1 could not load: .*Input/output error"),
        ("stuck", "rank 1 could not load: .*stalled"),
    ],
)
def test_a_process_that_fails_in_the_middle_fails_all_within_seconds(model, mode, words):
    first, second = processes(model, 2, mode)
    assert second is None or "error" in second
    assert re.search(words, first["error"])
    assert first["seconds"] < 10
