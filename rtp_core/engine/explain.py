"""The report of `rtp explain`: which part fills each role, why, and what it costs."""

from __future__ import annotations

from typing import Any

from rtp_core.engine.capacity import weight_bytes
from rtp_core.engine.cpu_weights import kernel_form
from rtp_core.engine.model_facts import quantization_name
from rtp_core.engine.prepare import Prepared
from rtp_core.plugins.explain import explain, to_json


def explain_prepared(prepared: Prepared) -> dict[str, Any]:
    """The JSON of `rtp explain`: features with reasons, model, memory."""
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
        ("weights", prepared.weights.name, prepared.weights.reason),
        ("kernels", *kernel_form(spec.dtype)),
    )
    features = explain(prepared.config, prepared.resolution, prepared.host.manifests, decided)
    model = {
        "path": prepared.config.model.path,
        "architecture": spec.architecture,
        "dtype": spec.dtype,
        "max_model_len": spec.max_model_len,
        "fingerprint": spec.fingerprint,
    }
    return {"model": model, "memory": memory, "features": to_json(features)}


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
