"""The steps that `rtp tune` times, with the CPU in the device's part."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

from rtp_core.api import ParallelContext
from rtp_core.config.read import load_config
from rtp_core.engine import tune_steps
from rtp_core.engine.prepare import prepare
from rtp_core.engine.tune import Kept, tune_step
from rtp_core.engine.tune_setup import check_length, open_steps, steps_over
from rtp_core.engine.tune_slots import Slots
from rtp_core.engine.tuned_file import Conditions, empty, load, tuned_file
from rtp_core.errors import ConfigError
from rtp_core.execution.device.accelerator import HostAccelerator
from rtp_core.execution.device.build import Placed
from rtp_core.execution.device.triton_attention import TritonAttention
from rtp_core.loading.dummy import DummyLoader
from rtp_core.loading.load import load_weights
from rtp_kernels.gpu import tuned
from rtp_kernels.registry import resolver

SHAPE = {
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    "vocab_size": 200,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
HERE = Conditions("card", "1", "2", "3", "4")


@pytest.fixture(autouse=True)
def short_and_as_shipped(monkeypatch):
    monkeypatch.setattr(tune_steps, "_ROUND_S", 1e-4)
    yield
    tuned.use_none()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps(SHAPE))
    sections = {"dtype": "float32", "device": "cpu", "loading": {"loader": "dummy"}}
    return prepare(load_config(overrides={"model": str(folder), **sections}))


@pytest.fixture
def steps(prepared):
    spec = prepared.spec
    parameters, _ = load_weights(prepared.plan, DummyLoader(), "cpu", lambda _: None)
    model = prepared.family.build(spec, parameters, ParallelContext(), resolver("cpu", spec.dtype))
    placed = Placed(model, spec, prepared.context.limits, HostAccelerator())
    return steps_over(prepared, placed, TritonAttention("cpu"), 4, 40)


def test_slots_are_the_linear_operations_of_the_model(prepared):
    shapes = {one.name.rpartition(".")[2]: one.shape for one in prepared.plan.parameters}
    found = Slots.of(prepared).linear
    assert f"norm_gate_up {'x'.join(map(str, shapes['gate_up']))}" in found
    assert f"linear_residual {'x'.join(map(str, shapes['down']))}" in found
    assert {one.split()[0] for one in found} == {
        "norm_gate_up", "linear_residual", "norm_linear", "head",
    }  # fmt: skip
    assert len(set(found)) == len(found) <= 5


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_a_step_runs_in_every_form_and_is_timed(steps, rows):
    start = steps.start(rows)
    assert set(start) == {axis.slot for axis in steps.axes(rows)}
    assert 0 < steps.seconds(rows, start) < math.inf
    for axis in steps.axes(rows):
        for form in axis.others(start[axis.slot])[:2]:
            assert form != start[axis.slot]
            assert 0 < steps.seconds(rows, {**start, axis.slot: form}) < math.inf


def test_texts_lie_in_blocks_of_their_own(steps):
    frames = steps._programs.frames
    used = frames.tables(0, steps.context)[:4, : -(-40 // steps._programs.limits.block_size)]
    assert used.flatten().unique().numel() == used.numel()
    assert frames.device.lengths[:4].tolist() == [40] * 4


def test_a_form_that_fails_is_left_out_but_a_broken_device_is_not(steps, monkeypatch):
    start = steps.start(2)

    def fails(*shape):
        raise RuntimeError("out of resource: shared memory")

    monkeypatch.setattr(steps._programs, "run_once", fails)
    assert steps.seconds(2, start) == math.inf
    steps.compile(2, [start])
    monkeypatch.setattr(steps._accelerator, "free_bytes", fails)
    with pytest.raises(RuntimeError, match="out of resource"):
        steps.seconds(2, start)


def test_a_whole_search_keeps_forms_of_every_slot(steps, tmp_path):
    kept = Kept(empty(HERE), tuned_file(HERE, tmp_path))
    steps.use(kept.document)
    gain = tune_step(steps, 2, kept, lambda done, total: None, again=False)
    assert 0 < gain.after_s <= gain.before_s
    document = load(kept.file, HERE)
    assert tuned.num_forms(document) == len(steps.start(2))
    tuned.use(document)
    limits = {limit for by in document["linear"].values() for one in by.values() for limit in one}
    assert limits == {"16"}


def test_models_whose_steps_have_no_forms_are_refused(prepared):
    with pytest.raises(ConfigError, match="runs no recorded steps"):
        open_steps(prepared, 4, 40)


def test_texts_longer_than_the_context_are_refused(prepared):
    check_length(prepared, prepared.spec.max_model_len)
    with pytest.raises(ConfigError, match="--context"):
        check_length(prepared, prepared.spec.max_model_len + 1)


def test_equal_shapes_have_one_name(prepared):
    deeper = dataclasses.replace(prepared.spec, num_layers=prepared.spec.num_layers + 1)
    names = {Slots.of(prepared).name for _ in range(2)}
    assert len(names) == 1
    assert Slots.of(dataclasses.replace(prepared, spec=deeper)).name not in names
