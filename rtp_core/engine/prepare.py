"""Everything decided before a weight is read: parts, model description, memory budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
from rtp_core.engine.capacity import CacheBudget, available_bytes, plan_cache, weight_bytes
from rtp_core.engine.services import MeasuredCosts, MonotonicClock
from rtp_core.errors import ConfigError, ModelError
from rtp_core.loading.checkpoint import Checkpoint, open_checkpoint
from rtp_core.loading.demo import resolve_model
from rtp_core.plugins.discover import discover
from rtp_core.plugins.explain import explain, to_json
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
    architecture = _architecture(checkpoint)
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


def explain_prepared(prepared: Prepared) -> dict[str, Any]:
    """The JSON of `rtp explain`: features with reasons, model, memory."""
    spec, budget = prepared.spec, prepared.budget
    memory = {
        "weights_bytes": weight_bytes(spec),
        "kv_bytes": budget.num_bytes,
        "kv_blocks": budget.num_blocks[0],
        "kv_tokens": budget.num_blocks[0] * budget.block_size,
        "kv_reason": budget.reason,
    }
    features = explain(prepared.config, prepared.resolution, prepared.host.manifests)
    model = {
        "path": prepared.config.model.path,
        "architecture": spec.architecture,
        "dtype": spec.dtype,
        "max_model_len": spec.max_model_len,
        "fingerprint": spec.fingerprint,
    }
    return {"model": model, "memory": memory, "features": to_json(features)}


def run_dtype(setting: str) -> str:
    """``auto`` is bfloat16; float32 is exact and slower."""
    if setting == "auto":
        return "bfloat16"
    if setting in ("float32", "bfloat16"):
        return setting
    raise ConfigError(
        "model.dtype", f"{setting!r} is not supported", remedy="use auto, float32 or bfloat16"
    )


def stop_token_ids(checkpoint: Checkpoint) -> tuple[int, ...]:
    """Union of the stop ids of generation_config and config, sorted."""
    found: set[int] = set()
    for source in (checkpoint.generation_config, checkpoint.config):
        value = source.get("eos_token_id")
        if isinstance(value, int):
            found.add(value)
        elif isinstance(value, list):
            found.update(token for token in value if isinstance(token, int))
    return tuple(sorted(found))


def sampling_defaults(checkpoint: Checkpoint) -> dict[str, float]:
    """Sampling defaults of generation_config.json, under our names."""
    known = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    source: Mapping[str, Any] = checkpoint.generation_config
    return {
        key: source[key]
        for key in known
        if isinstance(source.get(key), (int, float)) and not isinstance(source[key], bool)
    }


def _architecture(checkpoint: Checkpoint) -> str:
    architectures = checkpoint.config.get("architectures") or []
    if len(architectures) != 1:
        raise ModelError(
            f"config.json of {checkpoint.root} names {len(architectures)} architectures",
            remedy='it needs "architectures": ["…ForCausalLM"]',
        )
    return architectures[0]


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
