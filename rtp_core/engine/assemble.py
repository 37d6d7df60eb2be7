"""Wiring, top to bottom: the only place that knows every part."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rtp_core.api import (
    AttentionBackend,
    CausalModel,
    KVMemory,
    LoadStats,
    ParallelContext,
    Role,
    SchedulingPolicy,
    WeightLoader,
)
from rtp_core.config.environment import cache_dir
from rtp_core.config.schema import EngineConfig
from rtp_core.engine.contract import ModelInfo
from rtp_core.engine.core import EngineCore, EngineParts
from rtp_core.engine.cores import usable_cores
from rtp_core.engine.cpu_weights import can_keep_codes
from rtp_core.engine.device_memory import enough_memory
from rtp_core.engine.devices import open_early, pick_device
from rtp_core.engine.drafters import bind_drafters
from rtp_core.engine.explain import explain_prepared
from rtp_core.engine.grammar_desk import GrammarDesk
from rtp_core.engine.model_facts import sampling_defaults, stop_token_ids
from rtp_core.engine.prepare import Prepared, prepare
from rtp_core.engine.reading import Reading
from rtp_core.engine.runners import builds_early, open_runner, rehearse_early
from rtp_core.engine.services import Stopwatch
from rtp_core.engine.tuned_kernels import use_tuned
from rtp_core.engine.tuning import MeasuredBounds
from rtp_core.kv.block_hash import BlockHasher, load_or_create_secret
from rtp_core.kv.cache import CacheSettings, KVCache
from rtp_core.loading.checksums import check_sums
from rtp_core.loading.codes import round_to_codes
from rtp_core.loading.files_done import TellingFiles
from rtp_core.loading.finite import check_finite
from rtp_core.loading.load import load_weights
from rtp_core.loading.objects.address import without_query
from rtp_core.scheduling.scheduler import Scheduler
from rtp_core.speculation.controller import SpeculationController
from rtp_core.text.gguf_tokenizer import WRITER_VERSION, write_tokenizer
from rtp_core.text.structured.grammars import Grammars
from rtp_core.text.structured.masks import GrammarMasks
from rtp_core.text.tokenizer import Tokenizer
from rtp_kernels.pack import pack_for_few_rows
from rtp_kernels.registry import resolver

log = logging.getLogger("rtp.engine")
Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all) while weights load."""


def build_engine(config: EngineConfig, progress: Progress | None = None) -> EngineCore:
    """Config in, running engine out. Errors appear here, before the first request."""
    torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))
    with enough_memory():
        return _build_engine(config, progress, Stopwatch())


def _build_engine(config: EngineConfig, progress: Progress | None, watch: Stopwatch) -> EngineCore:
    open_early(pick_device(config.model.device))
    prepared = prepare(config, watch=watch)
    host, context, spec = prepared.host, prepared.context, prepared.spec
    limits = context.limits
    use_tuned(context.device, spec.dtype)
    (attention,) = prepared.resolution.names(Role.ATTENTION)
    loader: WeightLoader = host.build(Role.LOADER, config.loading.loader, context)
    if config.server.verbose:
        loader = TellingFiles(loader)
    backend: AttentionBackend = host.build(Role.ATTENTION, attention, context)
    policy: SchedulingPolicy = host.build(Role.SCHEDULER, config.scheduling.policy, context)
    host.seal()

    info = _model_info(prepared)
    watch.lap("tokenizer")
    model, load = _load_model(prepared, loader, backend, progress, watch)
    eos = frozenset(info.eos_token_ids)
    grammars = _grammars(info)
    masks = GrammarMasks(grammars, spec.vocab_size, eos)
    runner, memory = open_runner(prepared, model, backend, eos, masks, watch)
    bind_drafters(prepared.drafters, model, backend, memory, spec, limits.block_size)
    cache = _cache(prepared, memory)
    watch.lap("cache")
    plugin_errors: Counter[str] = Counter()
    return EngineCore(
        EngineParts(
            info=replace(info, start=watch.timeline),
            scheduler=Scheduler(
                policy, cache, limits, context.clock, eos, bool(prepared.drafters.groups)
            ),
            runner=runner,
            speculation=SpeculationController(
                prepared.drafters.named,
                limits.max_draft_tokens,
                spec.vocab_size,
                _on_error(prepared, plugin_errors),
            ),
            memory=memory,
            costs=context.costs,
            load=load,
            explain=lambda: explain_prepared(prepared),
            plugin_errors=plugin_errors,
            grammars=GrammarDesk(grammars, masks.counts),
        )
    )


def write_tokenizer_files(prepared: Prepared) -> Path:
    """Directory with tokenizer.json: the model's own, or rebuilt once from GGUF metadata."""
    override = prepared.config.model.tokenizer
    if override is not None:
        return Path(override)
    checkpoint = prepared.checkpoint
    if checkpoint.gguf_metadata is None:
        return checkpoint.root
    directory = cache_dir() / "tokenizers" / f"{checkpoint.content_id}-{WRITER_VERSION}"
    if not (directory / "tokenizer.json").is_file():
        write_tokenizer(checkpoint.gguf_metadata, directory)
    return directory


def _load_model(
    prepared: Prepared,
    loader: WeightLoader,
    backend: AttentionBackend,
    progress: Progress | None,
    watch: Stopwatch,
) -> tuple[CausalModel, LoadStats]:
    """The model with its weights; what else can be done meanwhile is done beside reading."""
    plan, form, device = prepared.plan, prepared.weights, prepared.context.device
    if prepared.checkpoint.quantization is not None:
        log.info("quantized %s form=%r", prepared.checkpoint.quantization.summary, form.name)
    advance = _adding(progress, plan.num_bytes)
    if prepared.config.loading.checksums:
        check_sums(plan.file_bytes)
        watch.lap("checksums")
    if builds_early(prepared):
        with Reading(plan, loader, device, advance) as reading:
            watch.lap("allocation")
            rehearse_early(prepared, _model(prepared, reading.destinations), backend, watch)
            parameters, stats = reading.finish(watch)
        _check_numbers(prepared, parameters)
    else:
        parameters, stats = _load(prepared, loader, advance, watch)
    log.info(
        "weights_loaded strategy=%s bytes=%d seconds=%.3f",
        stats.strategy,
        stats.bytes_read,
        stats.seconds,
    )
    model = _model(prepared, parameters)
    watch.lap("model-build")
    return model, stats


def _model(prepared: Prepared, parameters: Mapping[str, Any]) -> CausalModel:
    spec = prepared.spec
    kernels = resolver(prepared.context.device, spec.dtype)
    return prepared.family.build(spec, parameters, ParallelContext(), kernels)


def _adding(progress: Progress | None, total: int) -> Callable[[int], None]:
    """What a loader calls with the bytes of each tensor."""
    done = 0

    def advance(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        if progress is not None:
            progress(done, total)

    return advance


def _load(
    prepared: Prepared, loader: WeightLoader, advance: Callable[[int], None], watch: Stopwatch
) -> tuple[Mapping[str, Any], LoadStats]:
    plan, form = prepared.plan, prepared.weights
    coded = form.keep_codes and can_keep_codes(form)
    watch.lap("self-test")
    parameters, stats = load_weights(
        plan, loader, prepared.context.device, advance, keep_codes=coded
    )
    _check_numbers(prepared, parameters)
    if coded and form.bits is not None:
        parameters = round_to_codes(parameters, plan, form.bits)
    watch.lap("weights", stats.bytes_read, stats.strategy)
    if prepared.context.device != "cpu":
        return parameters, stats
    bounds = MeasuredBounds(cache_dir() / "tuning")
    linear = (one.name for one in plan.parameters if one.linear)
    packed = pack_for_few_rows(parameters, prepared.spec.dtype, linear, bounds)
    bounds.save()
    watch.lap("packing")
    return packed, stats


def _check_numbers(prepared: Prepared, parameters: Mapping[str, Any]) -> None:
    if prepared.config.loading.check_finite:
        check_finite(parameters, prepared.plan)


def _cache(prepared: Prepared, memory: KVMemory) -> KVCache:
    config = prepared.config.kv
    secret_file = config.hash_secret_file or str(cache_dir() / "hash_secret")
    block_size = prepared.context.limits.block_size
    return KVCache(
        prepared.kv_groups,
        [memory.space(index) for index in range(len(prepared.kv_groups))],
        BlockHasher(load_or_create_secret(Path(secret_file)), block_size),
        CacheSettings(
            block_size,
            prepared.spec.fingerprint,
            config.prefix_caching,
            config.watermark,
            prepared.context.limits.max_num_batched_tokens,
        ),
    )


def _grammars(info: ModelInfo) -> Grammars:
    directory = Path(info.tokenizer_dir)
    return Grammars(lambda: Tokenizer.load(directory), info.vocab_size, info.eos_token_ids)


def _model_info(prepared: Prepared) -> ModelInfo:
    config, spec = prepared.config, prepared.spec
    names = config.model.served_name or (without_query(config.model.path),)
    return ModelInfo(
        name=names[0],
        architecture=spec.architecture,
        max_model_len=spec.max_model_len,
        vocab_size=spec.vocab_size,
        eos_token_ids=stop_token_ids(prepared.checkpoint),
        tokenizer_dir=str(write_tokenizer_files(prepared)),
        dtype=spec.dtype,
        defaults=sampling_defaults(prepared.checkpoint),
        device=prepared.context.device,
    )


def _on_error(prepared: Prepared, errors: Counter[str]) -> Callable[[str, Exception], None]:
    def report(name: str, error: Exception) -> None:
        plugin, version = prepared.host.owner(f"{Role.SPECULATOR.value}:{name}")
        errors[plugin] += 1
        log.error(
            "speculator_dropped name=%s plugin=%s version=%s error=%r",
            name,
            plugin,
            version,
            str(error),
        )

    return report
