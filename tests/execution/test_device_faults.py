"""What a step that breaks on a device costs: its own rows, and nothing after it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from rtp_core import SamplingParams
from rtp_core.api import Request
from rtp_core.engine.assemble import build_engine
from rtp_core.errors import DeviceLostError
from rtp_core.execution.device.accelerator import HostAccelerator, HostSpan

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
sys.path.insert(0, str(Path(__file__).parent))
from device_world import answers, configured, on_a_device
from small_models import random_ids, random_model

GREEDY = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
ILLEGAL = "CUDA error: an illegal memory access was encountered"


class FaultyModel:
    """Breaks after the layers of chosen forward passes ran: their keys and values are written."""

    def __init__(self, model):
        self._model = model
        self.faults = {}
        self.num_forwards = 0

    def forward(self, *arguments):
        self.num_forwards += 1
        return self._model.forward(*arguments)

    def logits(self, hidden):
        fault = self.faults.get(self.num_forwards)
        if fault is not None:
            raise fault
        return self._model.logits(hidden)


class FaultySpan(HostSpan):
    def __init__(self, fault):
        super().__init__()
        self._fault = fault

    def wait(self):
        if self._fault is not None:
            raise self._fault
        return super().wait()


class FaultyAccelerator(HostAccelerator):
    """Reports chosen steps' faults late, when they are waited for."""

    def __init__(self, most_in_flight=2):
        super().__init__(most_in_flight)
        self.faults = {}
        self.num_steps = self.num_freed = 0
        self.reason = None

    def begin(self):
        self.num_steps += 1
        return FaultySpan(self.faults.get(self.num_steps))

    def lost(self):
        return self.reason

    def free(self):
        self.num_freed += 1


class Counting:
    """Of an attention's resets."""

    def __init__(self, attention):
        self.count, self._reset = 0, attention.reset
        attention.reset = self

    def __call__(self):
        self.count += 1
        self._reset()


class Bench:
    """An engine on a faulty device, and what an intact one answers."""

    def __init__(self, path):
        config = configured(path)
        plain = build_engine(config)
        self.model, self.accelerator = FaultyModel(plain._runner._model), FaultyAccelerator()
        self.engine = on_a_device(
            plain, config, accelerator=self.accelerator, model=self.model, capture=False
        )
        self.right = build_engine(config)
        self.runner = self.engine._runner
        self.resets = Counting(self.runner._programs.attention)

    def run(self, *requests):
        """Tokens, reasons and errors by request."""
        for request in requests:
            self.engine.submit(request)
        tokens, ends = {}, {}
        for _ in range(500):
            if not self.engine.has_work:
                self.settled()
                return tokens, ends
            for event in self.engine.step():
                tokens.setdefault(event.request_id, []).extend(event.token_ids)
                if event.finish_reason is not None:
                    ends[event.request_id] = event.finish_reason, event.error
        raise AssertionError("still busy")

    def settled(self):
        """Nothing is held; slots are given back with the next plan."""
        assert self.engine._scheduler.cache.num_blocks_used == 0
        assert len(self.runner._slots._free) + len(self.runner._slots._slots) == 6

    def works(self, *requests):
        """Answers of an engine that never broke, whatever the cache holds."""
        expected = answers(self.right, requests)
        tokens, ends = self.run(*requests)
        assert {reason for reason, _ in ends.values()} == {"length"}
        assert {(name, 0): found for name, found in tokens.items()} == expected


@pytest.fixture
def bench(save_model):
    return Bench(save_model(random_model("LlamaForCausalLM", "llama3")))


def asked(name, length=40, params=GREEDY):
    return Request(name, tuple(random_ids(length, seed=length)), params)


def test_memory_that_runs_out_in_a_step_fails_its_rows_with_the_reason(bench):
    bench.model.faults[2] = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    _, ends = bench.run(asked("a"), asked("b", 41))
    assert {reason for reason, _ in ends.values()} == {"error"}
    for _, error in ends.values():
        assert "ran out of memory" in error
        assert "--max-num-batched-tokens" in error
        assert "2 GiB" not in error
    assert bench.accelerator.num_freed == 1
    assert bench.resets.count == 1
    bench.works(asked("c"), asked("d", 41))


@pytest.mark.parametrize(
    "words", ["Triton Error [CUDA]: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED"]
)
def test_libraries_that_run_out_of_memory_are_understood(bench, words):
    bench.model.faults[1] = RuntimeError(words)
    _, ends = bench.run(asked("a"))
    assert "ran out of memory" in ends["a"][1]
    assert bench.accelerator.num_freed == 1


def test_a_kernel_that_cannot_be_launched_fails_only_the_step_it_belongs_to(bench):
    bench.model.faults[3] = RuntimeError("Triton Error [CUDA]: invalid argument")
    work = [asked(f"r{number}", 20 + number) for number in range(8)]  # six fit at once
    tokens, ends = bench.run(*work)
    broken = {name for name, (reason, _) in ends.items() if reason == "error"}
    assert 0 < len(broken) <= 6
    assert all("see the server log" in ends[name][1] for name in broken)
    whole = [one for one in work if one.request_id not in broken]
    assert len(whole) >= 2
    expected = answers(bench.right, whole)
    assert {(one.request_id, 0): tokens[one.request_id] for one in whole} == expected
    assert bench.accelerator.num_freed == 0


@pytest.mark.parametrize("where", ["launch", "wait"])
@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_step_breaks_while_the_next_is_queued_or_planned(bench, where, step):
    faults = bench.model.faults if where == "launch" else bench.accelerator.faults
    faults[step] = RuntimeError("no")
    _, ends = bench.run(asked("a"), asked("b", 90))
    assert "error" in {reason for reason, _ in ends.values()}
    assert bench.resets.count == 1
    # The same prompts: nobody reads what the broken step has written.
    bench.works(asked("c"), asked("d", 90))
    bench.works(*(asked(f"e{number}", 30 + number) for number in range(9)))


def test_every_step_breaks_and_then_none(bench):
    bench.model.faults.update({number: RuntimeError("no") for number in range(1, 12)})
    for number in range(4):
        bench.run(*(asked(f"{number}/{one}", 17 + one) for one in range(7)))
        if bench.model.num_forwards >= 11:
            break
    bench.model.faults.clear()
    bench.works(*(asked(f"w{number}", 17 + number) for number in range(7)))


@pytest.mark.parametrize("where", ["launch", "wait"])
def test_a_lost_device_ends_the_engine(bench, where):
    fault = torch.AcceleratorError(ILLEGAL)
    if where == "launch":
        bench.model.faults[2] = fault
    else:
        bench.accelerator.faults[2] = fault
    bench.accelerator.reason = ILLEGAL
    with pytest.raises(DeviceLostError, match="illegal memory access") as caught:
        bench.run(asked("a"))
    assert caught.value.__cause__ is fault
    assert bench.resets.count == 0  # it would call the device


def test_out_of_memory_on_a_lost_device_is_a_lost_device(bench):
    bench.model.faults[1] = torch.OutOfMemoryError("CUDA out of memory")
    bench.accelerator.reason = "CUDA error: uncorrectable ECC error encountered"
    bench.engine.submit(asked("a"))
    with pytest.raises(DeviceLostError, match="ECC"):
        bench.engine.step()
    assert bench.accelerator.num_freed == 0
