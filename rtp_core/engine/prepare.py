"""Everything decided before a weight is read: parts, model description, memory budget."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from rtp_core.api import (
    BuildContext,
    EngineLimits,
    KVStore,
    ModelFamily,
    ModelSpec,
    Role,
)
from rtp_core.config.environment import cache_dir
from rtp_core.config.schema import EngineConfig
from rtp_core.engine.capacity import CacheBudget, available_bytes, plan_cache
from rtp_core.engine.model_facts import architecture_name, run_dtype
from rtp_core.engine.services import MeasuredCosts, MonotonicClock
from rtp_core.errors import ConfigError
from rtp_core.loading.checkpoint import Checkpoint, open_checkpoint
from rtp_core.loading.demo import resolve_model
from rtp_core.plugins.discover import discover
from rtp_core.plugins.host import PluginHost
from rtp_core.plugins.resolve import Resolution, resolve
from rtp_core.plugins.wants import wants

CPU_BLOCK_SIZE = 16


@dataclass(frozen=True, slots=True)
class Prepared:
    """A checked configuration with its plugins loaded and its model described."""

    config: EngineConfig
    checkpoint: Checkpoint
    host: PluginHost
    resolution: Resolution
    spec: ModelSpec
    family: ModelFamily
    store: KVStore
    budget: CacheBudget
    context: BuildContext


def prepare(config: EngineConfig, device: str = "cpu") -> Prepared:
    """Resolve plugins, describe the model, size the cache. Reads no weights.

    Raises ConfigError, ResolutionError, PluginError, ModelError or CapacityError.
    """
    checkpoint = open_checkpoint(resolve_model(config.model.path, cache_dir()))
    architecture = architecture_name(checkpoint)
    manifests = discover()
    resolution = resolve(
        wants(config, architecture, device), manifests, frozenset({f"device:{device}"})
    )
    host = PluginHost(manifests, config.plugins)
    host.load(resolution)
    limits = _limits(config, checkpoint)
    dtype = run_dtype(config.model.dtype)
    context = BuildContext(device, dtype, limits, MonotonicClock(), MeasuredCosts())
    family: ModelFamily = host.build(Role.MODEL, architecture, context)
    spec = _describe(family, checkpoint, dtype, limits)
    context = dataclasses.replace(context, model=spec)
    store: KVStore = host.build(Role.KV_STORE, config.kv.store, context)
    budget = plan_cache(config, spec, store, limits, available_bytes())
    return Prepared(config, checkpoint, host, resolution, spec, family, store, budget, context)


def _limits(config: EngineConfig, checkpoint: Checkpoint) -> EngineLimits:
    longest = int(checkpoint.config.get("max_position_embeddings") or 2048)
    wanted = config.model.max_model_len or longest
    if wanted > longest:
        raise ConfigError(
            "model.max_model_len",
            f"{wanted} is more than the {longest} positions the model was made for",
            remedy=f"use at most {longest}",
        )
    return EngineLimits(
        max_model_len=wanted,
        max_num_seqs=config.scheduling.max_num_seqs,
        max_num_batched_tokens=config.scheduling.max_num_batched_tokens,
        block_size=config.kv.block_size or CPU_BLOCK_SIZE,
        max_draft_tokens=config.speculation.max_draft_tokens if config.speculation.methods else 0,
    )


def _describe(
    family: ModelFamily, checkpoint: Checkpoint, dtype: str, limits: EngineLimits
) -> ModelSpec:
    fingerprint = f"{checkpoint.content_id}:{dtype}"
    spec = family.spec(checkpoint.config, dtype, fingerprint)
    return dataclasses.replace(spec, max_model_len=limits.max_model_len)
