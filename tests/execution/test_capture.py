"""What recording programs costs."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from rtp_core.engine.assemble import build_engine
from rtp_core.execution.device.accelerator import CudaAccelerator, HostAccelerator

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
sys.path.insert(0, str(Path(__file__).parent))
from device_world import configured, on_a_device
from small_models import random_model


class Counting:
    def __init__(self, model):
        self._model, self.num_forwards = model, 0

    def forward(self, *arguments):
        self.num_forwards += 1
        return self._model.forward(*arguments)

    def logits(self, hidden):
        return self._model.logits(hidden)


class CountingAccelerator(HostAccelerator):
    def __init__(self):
        super().__init__()
        self.num_captured = 0

    def capture(self, run):
        self.num_captured += 1
        return super().capture(run)


def test_a_program_that_was_rehearsed_is_run_once_to_be_recorded(save_model):
    config = configured(save_model(random_model("LlamaForCausalLM", "llama3")))
    engine = build_engine(config)
    model, accelerator = Counting(engine._runner._model), CountingAccelerator()
    on_a_device(engine, config, model=model, accelerator=accelerator)
    sizes = len([1, 2, 4, 6])  # one context: 200 tokens at most
    assert accelerator.num_captured == model.num_forwards == sizes


class Graph:
    def __init__(self):
        self.was_reset = False

    def reset(self):
        self.was_reset = True

    def replay(self):
        """Nothing to do."""


@pytest.mark.parametrize("loaded", [True, False])
def test_a_program_with_kernels_that_were_never_launched_is_run_before(loaded, monkeypatch):
    """They cannot be loaded while a graph is recorded."""
    log, graphs = [], []
    known = {"kernel"} if loaded else set()
    tells = []

    @contextmanager
    def recording(tell):
        tells.append(tell)
        yield
        tells.pop()

    def run():
        log.append("run")
        if "kernel" not in known:
            if tells:
                tells[-1]("kernel")
            else:
                known.add("kernel")
        return torch.zeros(1)

    def record(run):
        log.append("record")
        graphs.append(Graph())
        return graphs[-1], run()

    monkeypatch.setattr("rtp_kernels.gpu.precompile.missing", recording)
    accelerator = object.__new__(CudaAccelerator)
    monkeypatch.setattr(accelerator, "_record", record)
    replay, _ = accelerator.capture(run)
    assert replay == graphs[-1].replay
    assert not graphs[-1].was_reset
    if loaded:
        assert log == ["record", "run"]
    else:
        assert log == ["record", "run", "run", "record", "run"]
        assert graphs[0].was_reset
