"""Memory of the KV cache, before and after the weights are read."""

from __future__ import annotations

from rtp_core.api import AttentionBackend, EngineLimits, KVGroup, KVStore, ModelSpec
from rtp_core.config.schema import EngineConfig
from rtp_core.engine.capacity import CacheBudget, available_bytes, plan_cache, plan_device_cache
from rtp_core.engine.device_memory import expected_memory, measured_memory
from rtp_core.engine.devices import pick_device
from rtp_core.execution.device.build import Placed


def expected_budget(
    config: EngineConfig,
    spec: ModelSpec,
    store: KVStore,
    limits: EngineLimits,
    weights_bytes: int,
    draft_groups: tuple[KVGroup, ...] = (),
) -> CacheBudget:
    """From shapes. Raises CapacityError when the model cannot fit, with its drafters."""
    groups = spec.kv_groups + draft_groups
    if pick_device(config.model.device) == "cpu":
        return plan_cache(config, groups, store, limits, available_bytes(), weights_bytes)
    expected = expected_memory(spec, limits, weights_bytes)
    return plan_device_cache(config, groups, store, limits, expected)


def measured_budget(
    config: EngineConfig, placed: Placed, backend: AttentionBackend, store: KVStore
) -> CacheBudget:
    """From a step of the largest size, on a device that holds the weights."""
    measured = measured_memory(placed, backend, store)
    return plan_device_cache(config, placed.spec.kv_groups, store, placed.limits, measured)
