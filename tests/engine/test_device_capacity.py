"""The cache's share of a GPU's memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rtp_core.config.read import load_config
from rtp_core.engine.capacity import DeviceMemory, plan_device_cache
from rtp_core.engine.device_memory import enough_memory
from rtp_core.engine.prepare import prepare
from rtp_core.errors import CapacityError

MIB = 2**20


@pytest.fixture(scope="module")
def prepared(tiny_model):
    return prepare(load_config(overrides={"model": str(tiny_model), "dtype": "float32"}))


def plan(prepared, memory, setting=0.0):
    config = load_config(overrides={"kv": {"memory": setting}})
    limits = replace(prepared.context.limits, max_num_seqs=10**6)
    return plan_device_cache(config, prepared.spec.kv_groups, prepared.store, limits, memory)


def test_the_rest_of_the_share_is_the_caches(prepared):
    budget = plan(prepared, DeviceMemory(1000 * MIB, 300 * MIB, 100 * MIB))
    assert 499 * MIB < budget.num_bytes <= 500 * MIB
    assert budget.reason == "0.9 of the GPU's 1000 MiB"
    assert (
        plan(prepared, DeviceMemory(1000 * MIB, 300 * MIB, 100 * MIB), 0.5).num_bytes <= 100 * MIB
    )


def test_bytes_are_bytes(prepared):
    budget = plan(prepared, DeviceMemory(1000 * MIB, 300 * MIB, 100 * MIB), 50 * MIB)
    assert 49 * MIB < budget.num_bytes <= 50 * MIB


def refused(prepared, memory, setting=0.0):
    with pytest.raises(CapacityError, match="weights take") as caught:
        plan(prepared, memory, setting)
    assert "1000 MiB" in str(caught.value)
    return caught.value.remedy


def test_weights_that_do_not_fit_are_not_blamed_on_the_cache(prepared):
    remedy = refused(prepared, DeviceMemory(1000 * MIB, 950 * MIB, 100 * MIB))
    assert "the weights alone do not fit" in remedy
    assert "--max-model-len" not in remedy


def test_steps_that_do_not_fit_are_to_be_smaller(prepared):
    remedy = refused(prepared, DeviceMemory(1000 * MIB, 850 * MIB, 100 * MIB))
    assert "--max-num-batched-tokens (now 1024)" in remedy
    assert "--max-num-seqs" in remedy
    assert "--gpu-memory-utilization" in remedy


def test_the_length_that_is_named_fits_and_the_next_does_not(prepared):
    """A block more than half of what the longest text needs is left."""
    (group,) = prepared.spec.kv_groups
    size = prepared.context.limits.block_size
    block = prepared.store.block_bytes(group, size)
    half = prepared.context.limits.max_model_len // size // 2
    left = DeviceMemory(1000 * MIB, 900 * MIB - (half + 1) * block, 0)
    remedy = refused(prepared, left)
    assert f"--max-model-len {half * size} fits" in remedy
    config = load_config(overrides={})

    def of_length(length):
        limits = replace(prepared.context.limits, max_model_len=length)
        return plan_device_cache(config, prepared.spec.kv_groups, prepared.store, limits, left)

    assert of_length(half * size).num_blocks == (half + 1,)
    with pytest.raises(CapacityError):
        of_length((half + 1) * size)


@pytest.mark.parametrize("setting", [700 * MIB, 1024])
def test_a_size_in_bytes_has_bounds(prepared, setting):
    remedy = refused(prepared, DeviceMemory(1000 * MIB, 300 * MIB, 100 * MIB), setting)
    words = remedy.split()
    least, most = (int(word) for word in words if word.isdigit())
    assert 1024 < least < most == 600 * MIB


def test_memory_that_runs_out_while_building_is_told_with_the_remedy():
    text = (
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 80.00 GiB "
        "of which 1.00 GiB is free. Process 7 has 3 GiB in use. And much more"
    )
    with pytest.raises(CapacityError) as caught, enough_memory():
        raise torch.OutOfMemoryError(text)
    assert "Tried to allocate 2.00 GiB" in caught.value.message
    assert "much more" not in caught.value.message
    assert "--gpu-memory-utilization" in caught.value.remedy
