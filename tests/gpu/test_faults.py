"""What real faults of a CUDA device cost, and what a start costs."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from rtp_core import SamplingParams
from rtp_core.api import Request
from rtp_core.config.read import load_config
from rtp_core.engine.assemble import build_engine
from rtp_core.engine.process_backend import ProcessBackend
from rtp_core.engine.supervisor import Patience
from rtp_core.errors import CapacityError, EngineDeadError

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from backend_cases import read, until

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.model,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
GREEDY = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
QUICK = Patience(max_restarts=2, window_s=300.0, first_delay_s=0.05)
CUE = 1234
SMALL = {"kv": {"memory": float(2**30)}, "max_model_len": 4096}


def configured(**changes):
    return load_config(overrides={"model": "demo", "device": "cuda", **SMALL, **changes})


@pytest.fixture
def engine():
    built = build_engine(configured())
    yield built
    built.close()
    del built
    gc.collect()
    torch.cuda.empty_cache()


def asked(name, length=40, params=GREEDY, seed=5):
    ids = tuple((seed * 7919 + number * 104729) % 40000 + 10 for number in range(length))
    return Request(name, ids, params)


def run(engine, *requests):
    """(tokens, reason, error) by request."""
    found = {}
    for request in requests:
        engine.submit(request)
    while engine.has_work:
        for event in engine.step():
            tokens, _, _ = found.get(event.request_id, ((), None, None))
            found[event.request_id] = (
                tokens + tuple(event.token_ids), event.finish_reason, event.error,
            )  # fmt: skip
    return found


@contextmanager
def no_memory_left():
    """Everything that can be had of the device is held."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    held, size = [], 2**30
    while size >= 2**20:
        try:
            held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        except torch.OutOfMemoryError:
            size //= 2
    try:
        yield
    finally:
        held.clear()
        torch.cuda.empty_cache()


def test_memory_that_others_take_fails_a_step_and_nothing_after_it(engine):
    right = run(engine, asked("a"))["a"]
    assert right[1] == "length"
    long = [asked(f"long{number}", 2000, seed=number) for number in range(4)]
    with no_memory_left():
        broken = run(engine, *long)
    assert any(reason == "error" for _, reason, _ in broken.values())
    for _, reason, error in broken.values():
        assert reason != "error" or "ran out of memory" in error or "server log" in error
    assert engine.stats().num_running == 0
    again = run(engine, asked("b"), *(asked(f"x{n}", 2000, seed=n) for n in range(4)))
    assert {reason for _, reason, _ in again.values()} == {"length"}
    assert run(engine, asked("c"))["c"] == right


def test_a_kernel_that_cannot_be_launched_fails_its_step(engine):
    from wild_engine import write_far_away

    right = run(engine, asked("a"))["a"]
    launch, calls = engine._runner._programs.run, []

    def too_large(shape, num_drawing):
        calls.append(shape)
        if len(calls) == 2:
            place = torch.zeros(1, dtype=torch.int32, device="cuda")
            write_far_away[(1, 1, 70_000)](place, 0)
        return launch(shape, num_drawing)

    engine._runner._programs.run = too_large
    (broken,) = run(engine, asked("b")).values()
    assert broken[1] == "error"
    assert "see the server log" in broken[2]
    assert run(engine, asked("c"))["c"] == right


async def test_an_illegal_access_ends_the_process_and_the_next_one_answers():
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    backend = ProcessBackend(configured(), builder="wild_engine:build", patience=QUICK)
    try:
        await backend.start()
        first = backend.pid
        right, _ = await read(backend, asked("a"))
        long = SamplingParams(temperature=0.0, max_tokens=2000, ignore_eos=True)
        neighbour = asyncio.ensure_future(read(backend, asked("n", params=long)))
        await asyncio.sleep(0.3)
        bad = Request("bad", (CUE, *range(20)), GREEDY)
        began = time.monotonic()
        for reader in (read(backend, bad), neighbour):
            with pytest.raises(EngineDeadError, match="illegal memory access"):
                await asyncio.wait_for(reader, 30)
        assert time.monotonic() - began < 10
        with pytest.raises(EngineDeadError):
            await read(backend, asked("too soon"))
        await until(lambda: backend.state == "ready", 120)
        assert backend.pid != first
        assert (await read(backend, asked("b")))[0] == right
    finally:
        await backend.close()


def test_a_start_is_captured_quickly_and_knows_what_was_compiled():
    build_engine(configured()).close()
    gc.collect()
    engine = build_engine(configured())
    phases = {one.name: one for one in engine.info.start.phases}
    assert phases["compiling"].note == "done at an earlier start"
    assert phases["compiling"].seconds < 0.1
    assert phases["capture"].seconds < 1.0
    assert phases["capture"].num_bytes < 100 * 2**20
    assert phases["weights"].began_s is not None
    engine.close()


def test_a_device_that_is_too_full_is_refused_with_what_would_fit():
    with pytest.raises(CapacityError, match="the weights alone do not fit"):
        build_engine(configured(kv={"memory": 0.0001}))
