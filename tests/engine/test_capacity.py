"""How much memory the KV cache gets, and what is said when it does not suffice."""

from __future__ import annotations

import dataclasses
import json

import pytest

from rtp_core import LLM
from rtp_core.api import EngineLimits, KVGroup, KVPlane, ParameterSpec
from rtp_core.config.read import load_config
from rtp_core.config.schema import EngineConfig, KVConfig
from rtp_core.engine import budget as budget_room
from rtp_core.engine.capacity import available_bytes, plan_cache, weight_bytes
from rtp_core.engine.prepare import prepare
from rtp_core.errors import CapacityError, ConfigError, ModelError
from rtp_core.kv.cache import blocks_in_sight

GIB = 2**30


@pytest.fixture(scope="module")
def prepared(tiny_model):
    return prepare(load_config(overrides={"model": str(tiny_model), "dtype": "float32"}))


def budget(prepared, free=4 * GIB, limits=None, **kv):
    config = dataclasses.replace(prepared.config, kv=dataclasses.replace(prepared.config.kv, **kv))
    limits = limits or EngineLimits(512, 8, 256, 16, 0)
    needed = weight_bytes(prepared.plan.parameters)
    return plan_cache(config, prepared.spec.kv_groups, prepared.store, limits, free, needed)


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
    monkeypatch.setattr(budget_room, "available_bytes", lambda: 2**20)
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


# ---- groups of layers with and without a window


MIB = 2**20
PLANE = KVPlane(2, 64, "bfloat16")
LIMITS = EngineLimits(
    max_model_len=4096,
    max_num_seqs=8,
    max_num_batched_tokens=256,
    block_size=16,
    max_draft_tokens=0,
)


class Store:
    def block_bytes(self, group, block_size):
        return len(group.layers) * 2 * block_size * 2 * 64 * 2


def group(layers, window=None):
    return KVGroup(str(window), tuple(range(layers)), (PLANE, PLANE), window)


def plan(groups, memory=0.0, **limits):
    config = EngineConfig(kv=KVConfig(memory=memory))
    return plan_cache(config, groups, Store(), dataclasses.replace(LIMITS, **limits), 2**34, 0)


FULL, WINDOW = group(2), group(10, 512)
ONE = Store().block_bytes(group(1), 16)


def test_one_group_gets_all_the_memory_it_can_use():
    assert plan([FULL], memory=100 * 2 * ONE).num_blocks == (100,)
    longest = 4096 // 16 + 1
    assert plan([FULL], memory=2**33).num_blocks == (8 * longest,)


def test_by_default_a_full_length_request_fits():
    (blocks,) = plan([group(40)]).num_blocks
    assert blocks == max(257, 512 * MIB // (40 * ONE))
    (blocks,) = plan([group(400)]).num_blocks
    assert blocks == 257


def test_small_memory_is_shared_evenly():
    found = plan([FULL, WINDOW], memory=50 * 12 * ONE)
    assert found.num_blocks == (50, 50)
    assert found.num_bytes == 50 * 12 * ONE


def test_a_window_group_stops_where_it_could_use_no_more():
    seen = 8 * blocks_in_sight(512, 1, 16) + 16
    full, window = plan([FULL, WINDOW], memory=400 * 12 * ONE).num_blocks
    assert window == seen
    assert full == (400 * 12 - seen * 10) // 2
    assert full > 2 * 400


def test_what_a_full_length_request_holds_comes_first():
    """Even shares would leave the full group 723 blocks, or 2,942 after the window's cap."""
    longest = 65536 // 16 + 1
    held = blocks_in_sight(512, 256, 16)
    memory = (longest * 2 + held * 10) * ONE
    assert plan([FULL, WINDOW], memory=memory, max_model_len=65536).num_blocks == (longest, held)
    less = plan([FULL, WINDOW], memory=memory - ONE, max_model_len=65536).num_blocks
    assert less == (2941, 280)


def test_what_all_sequences_see_at_once_fits_a_capped_window_group():
    """Each decodes within a window but one, which computes a whole chunk."""
    _, window = plan([FULL, WINDOW], memory=2**33).num_blocks
    assert window >= 7 * blocks_in_sight(512, 1, 16) + blocks_in_sight(512, 256, 16)


def test_the_default_counts_only_what_a_long_request_holds_of_a_window():
    full = plan([group(12)], max_model_len=2**18).num_bytes
    mixed = plan([FULL, WINDOW], max_model_len=2**18).num_bytes
    assert full == (2**14 + 1) * 12 * ONE
    assert mixed < full / 3
    blocks = plan([FULL, WINDOW], max_model_len=2**18).num_blocks
    assert blocks[0] >= 2**18 // 16
    assert blocks[1] >= blocks_in_sight(512, 256, 16)


def test_a_model_of_windows_only_keeps_the_memory_for_prefixes():
    (blocks,) = plan([WINDOW], memory=500 * 10 * ONE).num_blocks
    assert blocks == 500


def test_weight_bytes_count_each_parameter_in_its_dtype():
    parameters = [ParameterSpec("a", (3, 5), "bfloat16"), ParameterSpec("b", (7,), "float32")]
    assert weight_bytes(parameters) == 58
