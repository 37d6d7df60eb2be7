"""What counts as the host's time in a step."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from rtp_core.bench.offline import Run, run_batch
from rtp_core.bench.prompts import random_prompts
from rtp_core.config.read import load_config
from rtp_core.engine.assemble import build_engine

PAUSE_S = 0.02


@pytest.fixture
def engine(tiny_model):
    return build_engine(load_config(overrides={"model": str(tiny_model)}))


def slow(function):
    def wrapped(*arguments, **named):
        time.sleep(PAUSE_S)
        return function(*arguments, **named)

    return wrapped


def host_seconds(engine):
    run = Run()
    run_batch(engine, random_prompts(4, 8, 250, seed=1), [6] * 4, run)
    assert len(run.host_s) == 5
    return min(run.host_s), min(run.step_s)


def test_time_in_forward_and_head_is_not_the_hosts(engine):
    runner = engine._runner
    model = runner._model
    runner._model = SimpleNamespace(forward=slow(model.forward), logits=slow(model.logits))
    host, step = host_seconds(engine)
    assert step >= 2 * PAUSE_S
    assert host < PAUSE_S


@pytest.mark.parametrize(
    ("part", "name"),
    [("_attention", "plan"), ("_sampler", "sample")],
)
def test_packing_and_sampling_are_the_hosts(engine, monkeypatch, part, name):
    owner = getattr(engine._runner, part)
    monkeypatch.setattr(owner, name, slow(getattr(owner, name)), raising=True)
    host, step = host_seconds(engine)
    assert PAUSE_S <= host <= step


@pytest.mark.parametrize("name", ["schedule", "commit"])
def test_scheduling_is_the_hosts(engine, monkeypatch, name):
    scheduler = engine._scheduler
    monkeypatch.setattr(scheduler, name, slow(getattr(scheduler, name)))
    host, step = host_seconds(engine)
    assert PAUSE_S <= host <= step
