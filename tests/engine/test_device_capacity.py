"""The cache's share of a GPU's memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rtp_core.config.read import load_config
from rtp_core.engine.capacity import DeviceMemory, plan_device_cache
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


@pytest.mark.parametrize(
    ("memory", "setting"),
    [
        (DeviceMemory(1000 * MIB, 850 * MIB, 100 * MIB), 0.0),
        (DeviceMemory(1000 * MIB, 300 * MIB, 100 * MIB), 700 * MIB),
        (DeviceMemory(1000 * MIB, 300 * MIB, 100 * MIB), 1024),
    ],
)
def test_what_does_not_fit_is_named_with_what_would(prepared, memory, setting):
    with pytest.raises(CapacityError, match="weights take") as caught:
        plan(prepared, memory, setting)
    for word in ("1000 MiB", "--max-model-len", "--gpu-memory-utilization"):
        assert word in str(caught.value)
