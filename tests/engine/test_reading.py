"""Weights that are read beside other work, and the engine that is built so."""

from __future__ import annotations

import threading
import time

import pytest

from rtp_core import SamplingParams
from rtp_core.api import LoadStats, Request
from rtp_core.config.read import load_config
from rtp_core.engine import assemble
from rtp_core.engine.assemble import build_engine
from rtp_core.engine.prepare import prepare
from rtp_core.engine.reading import Reading
from rtp_core.engine.services import Stopwatch
from rtp_core.errors import WeightLoadError
from rtp_core.loading.mmap_loader import MmapLoader


@pytest.fixture(scope="module")
def plan(tiny_model):
    return prepare(load_config(overrides={"model": str(tiny_model), "dtype": "float32"})).plan


class Gated:
    """Waits before it reads, and perhaps fails instead."""

    def __init__(self, fault=None):
        self.gate = threading.Event()
        self.ended = threading.Event()
        self._fault = fault

    def load(self, plan, sink, progress):
        assert self.gate.wait(10)
        if self._fault is not None:
            raise self._fault
        return MmapLoader().load(plan, sink, progress)


class Endless:
    """Places nothing and reports a byte at a time until it is stopped."""

    def __init__(self):
        self.begun, self.ended = threading.Event(), threading.Event()

    def load(self, plan, sink, progress):
        try:
            while True:
                progress(1)
                self.begun.set()
                time.sleep(0.001)
        finally:
            self.ended.set()


def test_destinations_are_there_before_the_first_byte_and_filled_in_place(plan):
    loader, watch, done = Gated(), Stopwatch(), []
    with Reading(plan, loader, "cpu", done.append) as reading:
        shapes = {name: tuple(one.shape) for name, one in reading.destinations.items()}
        assert shapes == {one.name: one.shape for one in plan.parameters}
        places = {name: one.data_ptr() for name, one in reading.destinations.items()}
        time.sleep(0.05)
        watch.lap("compiling")
        assert done == []
        loader.gate.set()
        parameters, stats = reading.finish(watch)
    assert {name: one.data_ptr() for name, one in parameters.items()} == places
    assert sum(done) == stats.bytes_read == plan.num_bytes
    line = watch.timeline
    compiling, weights, rest = line.phases
    assert (weights.name, weights.num_bytes, weights.note) == ("weights", plan.num_bytes, "mmap")
    assert line.began_s <= weights.began_s <= line.began_s + 0.05
    assert weights.seconds > compiling.seconds >= 0.05  # they ran side by side
    assert line.seconds == pytest.approx(compiling.seconds + rest.seconds)


def test_what_the_loader_raises_is_raised_where_it_is_waited_for(plan):
    loader = Gated(OSError(5, "Input/output error", "model.safetensors"))
    loader.gate.set()
    with (
        pytest.raises(WeightLoadError, match=r"model\.safetensors: cannot be read"),
        Reading(plan, loader, "cpu", lambda _: None) as reading,
    ):
        reading.finish(Stopwatch())


def test_an_engine_that_is_not_built_stops_reading(plan):
    loader = Endless()

    def build():
        with Reading(plan, loader, "cpu", lambda _: None):
            assert loader.begun.wait(10)
            raise ValueError("no kernel")

    with pytest.raises(ValueError, match="no kernel"):
        build()
    assert loader.ended.wait(10)


def test_kernels_are_tried_on_a_model_without_weights_and_answers_need_them(
    tiny_model, monkeypatch
):
    config = load_config(
        overrides={"model": str(tiny_model), "dtype": "float32", "max_model_len": 64}
    )
    plain = build_engine(config)
    gate, tried = threading.Event(), []
    load_weights = assemble.load_weights

    def late(*arguments, **keywords):
        assert gate.wait(10)
        return load_weights(*arguments, **keywords)

    def rehearse(prepared, model, backend, watch):
        tried.append(model)
        gate.set()
        watch.lap("kernels")

    monkeypatch.setattr("rtp_core.engine.reading.load_weights", late)
    monkeypatch.setattr(assemble, "builds_early", lambda prepared: True)
    monkeypatch.setattr(assemble, "rehearse_early", rehearse)
    early = build_engine(config)
    assert len(tried) == 1
    assert early._runner._model is not tried[0]
    names = [one.name for one in early.info.start.phases]
    assert names.index("allocation") < names.index("kernels") < names.index("weights-rest")
    wanted = Request("r", (3, 1, 4, 1, 5), SamplingParams(temperature=0.0, max_tokens=6))
    assert tokens(early, wanted) == tokens(plain, wanted)


def tokens(engine, request):
    engine.submit(request)
    found = []
    while engine.has_work:
        for event in engine.step():
            found.extend(event.token_ids)
    return found


def test_nothing_is_claimed_of_a_load_that_moved_nothing(plan):
    """A loader that leaves tensors out is found out as ever."""

    class Lazy:
        def load(self, plan, sink, progress):
            return LoadStats("lazy", 0, 0.0)

    with (
        pytest.raises(WeightLoadError, match="left out"),
        Reading(plan, Lazy(), "cpu", lambda _: None) as reading,
    ):
        reading.finish(Stopwatch())
