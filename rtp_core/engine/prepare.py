"""Everything decided before a weight is read: parts, model description, memory budget."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from rtp_core.api import (
    BuildContext,
    KVGroup,
    KVStore,
    ModelFamily,
    ModelSpec,
    Role,
    WeightPlan,
)
from rtp_core.config.schema import EngineConfig
from rtp_core.engine.budget import expected_budget
from rtp_core.engine.capacity import CacheBudget, weight_bytes
from rtp_core.engine.cpu_weights import WeightForm, weight_form
from rtp_core.engine.devices import pick_device
from rtp_core.engine.drafters import Drafters, build_drafters
from rtp_core.engine.model_facts import (
    architecture_name,
    check_quantization,
    context_length,
    engine_limits,
    run_dtype,
)
from rtp_core.engine.model_files import find_checkpoint, weight_plan
from rtp_core.engine.selection import load_plugins
from rtp_core.engine.services import MeasuredCosts, MonotonicClock, Stopwatch
from rtp_core.loading.checkpoint import Checkpoint
from rtp_core.plugins.host import PluginHost
from rtp_core.plugins.resolve import Resolution


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
    plan: WeightPlan
    weights: WeightForm
    drafters: Drafters

    @property
    def kv_groups(self) -> tuple[KVGroup, ...]:
        """The model's, then those of drafters."""
        return self.spec.kv_groups + self.drafters.groups


def prepare(
    config: EngineConfig,
    checkpoint: Checkpoint | None = None,
    watch: Stopwatch | None = None,
) -> Prepared:
    """Resolve plugins, describe the model, size the cache. Reads no weights.

    `checkpoint` None finds the model, and downloads what is an id of the hub; `watch` gets the
    laps.
    Raises ConfigError, ResolutionError, PluginError, ModelError or CapacityError.
    """
    watch = watch or Stopwatch()
    device = pick_device(config.model.device)
    checkpoint = checkpoint or find_checkpoint(config, watch)
    check_quantization(config.model.quantization, checkpoint)
    architecture = architecture_name(checkpoint)
    host, resolution = load_plugins(config, architecture, device)
    watch.lap("plugins")
    dtype = run_dtype(config.model.dtype)
    context = _first_context(config, checkpoint, device, dtype)
    (family_name,) = resolution.names(Role.MODEL)
    family: ModelFamily = host.build(Role.MODEL, family_name, context)
    spec = _describe(family, checkpoint, config, dtype)
    limits = engine_limits(config, spec.max_model_len, device)
    plan = weight_plan(config, family.weights(spec), checkpoint, dtype, device)
    weights = weight_form(config.model.cpu_weights, dtype, plan, device)
    spec = dataclasses.replace(spec, fingerprint=f"{checkpoint.content_id}:{weights.name}")
    context = dataclasses.replace(context, limits=limits, model=spec)
    store: KVStore = host.build(Role.KV_STORE, config.kv.store, context)
    drafters = build_drafters(host, config.speculation.methods, context, spec)
    needed = weight_bytes(plan.parameters) + drafters.memory_bytes
    watch.lap("plan")
    budget = expected_budget(config, spec, store, limits, needed, drafters.groups)
    return Prepared(
        config,
        checkpoint,
        host,
        resolution,
        spec,
        family,
        store,
        budget,
        context,
        plan,
        weights,
        drafters,
    )


def _first_context(
    config: EngineConfig, checkpoint: Checkpoint, device: str, dtype: str
) -> BuildContext:
    """What is known before the model is described."""
    return BuildContext(
        device,
        dtype,
        engine_limits(config, config.model.max_model_len or 0, device),
        MonotonicClock(),
        MeasuredCosts(),
        tensors=checkpoint.tensors,
        stall_timeout_s=config.loading.stall_timeout_s,
    )


def _describe(
    family: ModelFamily, checkpoint: Checkpoint, config: EngineConfig, dtype: str
) -> ModelSpec:
    """The family's description, with the context length that the configuration asks for."""
    spec = family.spec(checkpoint.config, dtype, checkpoint.content_id)
    return dataclasses.replace(spec, max_model_len=context_length(config, spec.max_model_len))
