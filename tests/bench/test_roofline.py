"""The best a decode step could do on a GPU, from bytes and a copy's rate."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from rtp_core.api import ExpertsSpec, KVGroup, KVPlane, ParameterSpec, Shard
from rtp_core.bench import in_process
from rtp_core.bench.in_process import Repeats, latency
from rtp_core.bench.offline import Load
from rtp_core.bench.roofline import copy_rate, roofline, step_bytes
from rtp_core.config.read import load_config
from rtp_core.kv.dense_store import DenseStore

RATE = 2e9


def prepared(parameters, *, tied=False, experts=None, window=None):
    plane = KVPlane(2, 8, "bfloat16")
    groups = [KVGroup("main", (0, 2), (plane, plane))]
    if window:
        groups.append(KVGroup("window", (1,), (plane, plane), window))
    return SimpleNamespace(
        spec=SimpleNamespace(tied_head=tied, experts=experts, kv_groups=groups),
        plan=SimpleNamespace(parameters=parameters),
        store=DenseStore(),
        budget=SimpleNamespace(block_size=32),
    )


EMBED = ParameterSpec("embed", (100, 16), "bfloat16", Shard.VOCABULARY)
MATRIX = ParameterSpec("layers.0.qkv", (48, 16), "bfloat16", Shard.KV_HEADS, linear=True)
EXPERTS = ParameterSpec("layers.0.expert_down", (64, 16), "bfloat16", Shard.EXPERTS)
TOKEN = 2 * 2 * 2 * 8 * 2
"""Layers, keys and values, heads, dimensions, bytes."""


def test_weights_are_read_once_and_keys_and_values_by_every_text():
    model = prepared([EMBED, MATRIX])
    assert step_bytes(model, 1, 10) == 48 * 16 * 2 + 10 * TOKEN
    assert step_bytes(model, 3, 10) == 48 * 16 * 2 + 30 * TOKEN


def test_an_embedding_counts_where_it_is_the_head_too():
    tied, free = (step_bytes(prepared([EMBED, MATRIX], tied=tied), 1, 1) for tied in (True, False))
    assert tied - free == 100 * 16 * 2


def test_a_window_bounds_what_its_layers_read():
    short, long = (step_bytes(prepared([], window=16), 1, context) for context in (16, 64))
    assert short == 16 * (TOKEN + TOKEN // 2)
    assert long == 64 * TOKEN + 16 * TOKEN // 2


@pytest.mark.parametrize(("batch", "share"), [(1, 0.25), (2, 0.4375), (1000, 1.0)])
def test_of_experts_those_count_that_are_chosen(batch, share):
    experts = ExpertsSpec((0,), num_experts=8, top_k=2, intermediate_size=8, normalize=True)
    model = prepared([EXPERTS], experts=experts)
    assert step_bytes(model, batch, 0) == pytest.approx(64 * 16 * 2 * share)


def test_the_fraction_is_of_the_median_and_null_where_nothing_was_measured():
    assert roofline(4e9, RATE, {"median": 8.0}) == {
        "roofline_step_s": 2.0,
        "roofline_fraction": 0.25,
    }
    assert roofline(4e9, RATE, {"median": None})["roofline_fraction"] is None


def test_a_cpu_has_no_copy_rate(tiny_model):
    assert copy_rate(load_config(overrides={"model": str(tiny_model), "device": "cpu"})) is None


@pytest.mark.parametrize("rate", [None, RATE])
def test_latency_reports_it_where_a_gpu_copies(tiny_model, monkeypatch, rate):
    monkeypatch.setattr(in_process, "copy_rate", lambda config: rate)
    config = load_config(overrides={"model": str(tiny_model), "device": "cpu"})
    results = latency(config, Load(8, 4, 2), Repeats(1, 0, 1), lambda line: None).results
    assert ("roofline_step_s" in results) == ("roofline_fraction" in results) == bool(rate)
    if rate:
        median = results["decode_step_s"]["median"]
        assert results["roofline_step_s"] > 0
        assert results["roofline_fraction"] * median == pytest.approx(results["roofline_step_s"])
