"""How much memory the KV cache gets, and what is said when it does not suffice."""

from __future__ import annotations

import dataclasses
import json

import pytest

from rtp_core import LLM
from rtp_core.api import EngineLimits
from rtp_core.config.read import load_config
from rtp_core.engine import prepare as prepare_room
from rtp_core.engine.capacity import available_bytes, plan_cache
from rtp_core.engine.prepare import prepare
from rtp_core.errors import CapacityError, ConfigError, ModelError

GIB = 2**30


@pytest.fixture(scope="module")
def prepared(tiny_model):
    return prepare(load_config(overrides={"model": str(tiny_model), "dtype": "float32"}))


def budget(prepared, free=4 * GIB, limits=None, **kv):
    config = dataclasses.replace(prepared.config, kv=dataclasses.replace(prepared.config.kv, **kv))
    limits = limits or EngineLimits(512, 8, 256, 16, 0)
    return plan_cache(config, prepared.spec, prepared.store, limits, free)


def test_bytes_and_shares_are_kept(prepared):
    assert budget(prepared, memory=2**20).num_bytes <= 2**20
    assert budget(prepared, free=GIB // 64, memory=0.5).num_bytes <= GIB // 128


def test_no_more_than_all_sequences_at_full_length_can_use(prepared):
    assert budget(prepared, memory=GIB).num_blocks == (8 * (512 // 16 + 1),)


def test_too_little_memory_names_both_sides_and_the_remedy(prepared):
    with pytest.raises(CapacityError, match=r"wants .* MiB .*available .*max-model-len"):
        budget(prepared, free=2**20, memory=2.0**31)


def test_a_cache_of_less_than_two_blocks_is_refused(prepared):
    with pytest.raises(CapacityError, match="raise kv"):
        budget(prepared, memory=1000.0)


def test_the_engine_refuses_before_it_reads_weights(tiny_model, monkeypatch):
    monkeypatch.setattr(prepare_room, "available_bytes", lambda: 2**20)
    with pytest.raises(CapacityError, match="KV cache wants"):
        LLM(model=str(tiny_model), dtype="float32", kv={"memory": 2**30})


def test_available_memory_is_read_from_the_system(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9 kB\nMemAvailable:    2048 kB\n")
    assert available_bytes(meminfo) == 2 * 2**20
    assert available_bytes() > 2**20


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architectures": None}, "architectures is None"),
        ({"architectures": "LlamaForCausalLM"}, "architectures is 'LlamaForCausalLM'"),
        ({"architectures": ["A", "B"]}, "architectures"),
        ({"max_position_embeddings": "many"}, "max_position_embeddings is 'many'"),
        ({"max_position_embeddings": -1}, "max_position_embeddings is -1"),
    ],
)
def test_a_configuration_that_cannot_be_believed_is_named(tiny_model, tmp_path, change, words):
    for file in tiny_model.iterdir():
        (tmp_path / file.name).symlink_to(file)
    config = json.loads((tiny_model / "config.json").read_text())
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelError, match=words):
        prepare(load_config(overrides={"model": str(tmp_path)}))


def test_a_context_longer_than_the_model_is_refused(tiny_model):
    with pytest.raises(ConfigError, match=r"model.max_model_len: 513 .*512"):
        prepare(load_config(overrides={"model": str(tiny_model), "max_model_len": 513}))


def test_no_more_sequences_run_than_a_step_has_tokens(tiny_model):
    few = load_config(
        overrides={"model": str(tiny_model), "scheduling": {"max_num_batched_tokens": 7}}
    )
    assert prepare(few).context.limits.max_num_seqs == 7
