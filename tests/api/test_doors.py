"""Doors the contract keeps open for later parts: the types carry what they will need."""

from __future__ import annotations

import inspect

import msgspec
import pytest

from rtp_core import api


def test_a_step_plan_with_everything_in_it_travels_between_processes():
    """Ranks receive the plan as data: drafts in a tree, features, loads, copies, no slot."""
    row = api.PlanRow(
        "r/0", (1, 2, 3, 4), 10, 2, True, ((0, 1), (5,)), tree_parents=(-1, -1),
        positions=((10, 11, 12, 12),) * 3, features=(api.FeatureSpan(0, 1, "d", 0),),
        writes_kv=False,
    )  # fmt: skip
    plan = api.StepPlan(
        1,
        (row,),
        (api.SequenceStart("r/0", api.SamplingParams(), 7, 0, (1, 2), 2),),
        ("gone",),
        (api.BlockCopy(0, 1, 2),),
        (api.KVLoad(0, (b"k",), (3,), "host"),),
    )
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=dict)
    assert again["rows"][0][6] == [-1, -1]
    assert again["rows"][0][7][2] == [10, 11, 12, 12]
    assert again["loads"][0]["tier"] == "host"
    assert plan.num_tokens == 4


def test_token_index_position_and_slot_are_three_things():
    fields = api.PlanRow._fields
    assert {"start", "positions", "block_tables", "writes_kv"} <= set(fields)


def test_a_request_can_wait_for_a_condition_and_carry_media():
    request = api.Request(
        "r", (1, 2), api.SamplingParams(), 1.5, waits_for=frozenset({"features:x"}),
        media=(api.MediaSpan(0, 1, "x", "vision"),), kv_quality=api.KVQuality.EXACT,
    )  # fmt: skip
    assert request.arrival_time_s == 1.5
    assert request.waits_for == {"features:x"}


def test_a_drafter_can_ask_for_hidden_states_and_cache_of_its_own():
    plane = api.KVPlane(1, 64, "bfloat16")
    needs = api.SpeculatorNeeds(
        4,
        "tree",
        capture_layers=(2, 15, 28),
        kv_groups=(api.KVGroup("eagle", (30,), (plane,) * 2),),
    )
    assert needs.capture_layers == (2, 15, 28)
    assert "capture_layers" in inspect.signature(api.CausalModel.forward).parameters
    assert "block_tables" in api.DraftRow._fields
    assert {"bind", "extend"} <= set(dir(api.StateSpeculator))


@pytest.mark.parametrize("shard", list(api.Shard))
def test_every_parameter_has_a_shard_rule(shard):
    assert api.ParameterSpec("w", (4, 4), "bfloat16", shard).shard is shard


def test_collectives_go_through_one_object():
    assert api.ParallelContext().all_reduce("x") == "x"
    with pytest.raises(RuntimeError, match="distributed"):
        api.ParallelContext(0, 2).all_reduce("x")


def test_blocks_can_be_exported_in_one_canonical_form():
    assert {"export_block", "import_block", "copy"} <= set(dir(api.KVMemory))


def test_a_transport_moves_blocks_and_the_runner_can_tell_which_group_is_done():
    assert {"push", "pull"} <= set(dir(api.KVTransport))
    assert api.GroupDone is not None
