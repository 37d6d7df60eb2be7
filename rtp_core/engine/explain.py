"""The report of `rtp explain`: which part fills each role, why, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rtp_core.config.effective import given_settings
from rtp_core.config.schema import EngineConfig
from rtp_core.engine.capacity import weight_bytes
from rtp_core.engine.cpu_weights import kernel_form
from rtp_core.engine.model_facts import quantization_name
from rtp_core.engine.prepare import Prepared, prepare
from rtp_core.engine.tuned_kernels import tuned_words
from rtp_core.loading.auto import AutoLoader
from rtp_core.loading.checkpoint import open_checkpoint
from rtp_core.loading.demo import DEMO_NAMES, hub_model, local_path
from rtp_core.loading.objects.address import is_object_address
from rtp_core.loading.objects.stand_in import is_stand_in
from rtp_core.plugins.explain import explain, to_json


def explain_model(config: EngineConfig) -> dict[str, Any]:
    """The JSON of `rtp explain` before any weight is read, or downloaded from a hub."""
    name = config.model.path
    here = name in DEMO_NAMES or is_object_address(name) or local_path(name) is not None
    if here:
        prepared = prepare(config)
        return explain_prepared(prepared, reading=_reading(prepared))
    hub_name = hub_model(name, config.model.revision)
    from rtp_core.loading.hub.sketch import sketched

    with sketched(hub_name) as (path, whole):
        return explain_prepared(
            prepare(config, checkpoint=open_checkpoint(path)), weights_here=whole
        )


def explain_prepared(
    prepared: Prepared,
    weights_here: bool = True,
    reading: Sequence[tuple[str, str, str]] = (),
) -> dict[str, Any]:
    """Features with reasons, model, memory, settings that were given.

    Without weights there is no fingerprint of them.

    `reading` says how weights would be read now.
    """
    spec, budget = prepared.spec, prepared.budget
    memory = {
        "weights_bytes": weight_bytes(prepared.plan.parameters),
        "kv_bytes": budget.num_bytes,
        "kv_blocks": budget.num_blocks[0],
        "kv_tokens": budget.num_blocks[0] * budget.block_size,
        "kv_reason": budget.reason,
    }
    decided = (
        *_quantization(prepared),
        *reading,
        ("weights", prepared.weights.name, prepared.weights.reason),
        _kernels(spec.dtype, prepared.context.device),
        ("structured_output", *_structured()),
    )
    features = explain(prepared.config, prepared.resolution, prepared.host.manifests, decided)
    model = {
        "path": prepared.config.model.path,
        "architecture": spec.architecture,
        "dtype": spec.dtype,
        "max_model_len": spec.max_model_len,
        "fingerprint": spec.fingerprint if weights_here else None,
        "weights_here": weights_here,
    }
    in_use = frozenset(manifest.name for manifest in prepared.resolution.plugins)
    return {
        "model": model,
        "memory": memory,
        "features": to_json(features),
        "settings": given_settings(prepared.config, in_use),
    }


def _reading(prepared: Prepared) -> tuple[tuple[str, str, str], ...]:
    """What ``auto`` finds out about the storage; nothing for a loader that was asked for."""
    files, device = prepared.plan.file_bytes, prepared.context.device
    if prepared.config.loading.loader != "auto" or not files:
        return ()
    if any(map(is_stand_in, files)):
        return (("reading", "file_order", "auto: objects are streamed"),)
    probe = AutoLoader(device=device).probe(files)
    return (("reading", probe.choice(device), f"auto: {probe.reason(device)}"),)


def _kernels(dtype: str, device: str) -> tuple[str, str, str]:
    form, reason = kernel_form(dtype, device)
    return "kernels", form, "; ".join(filter(None, (reason, tuned_words(device, dtype))))


def _structured() -> tuple[str, str]:
    """What compiles grammars, and why."""
    from rtp_core.text.structured.grammars import library_version

    version = library_version()
    if version is None:
        return "none", "the package llguidance is not installed: such requests are refused"
    return f"llguidance {version}", "grammars are compiled when a request asks for one"


def _quantization(prepared: Prepared) -> tuple[tuple[str, str, str], ...]:
    """One line if config.json says that the weights are quantized."""
    found = prepared.checkpoint.quantization
    if found is None:
        return ()
    said = [
        found.summary.partition(": ")[2],
        f"weights are dequantized to {prepared.spec.dtype}",
        "activations are not quantized on a CPU",
    ]
    if found.notes:
        said.append(f"left aside: {found.notes}")
    return (("quantization", quantization_name(prepared.checkpoint), "; ".join(said)),)
