"""What a checkpoint's configuration says about running it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rtp_core.api import EngineLimits
from rtp_core.config.schema import EngineConfig
from rtp_core.errors import ConfigError, ModelError
from rtp_core.loading.checkpoint import Checkpoint

CPU_BLOCK_SIZE = 16


def architecture_name(checkpoint: Checkpoint) -> str:
    """The one Hugging Face architecture config.json names; ModelError otherwise."""
    architectures = checkpoint.config.get("architectures") or []
    if len(architectures) != 1:
        raise ModelError(
            f"config.json of {checkpoint.root} names {len(architectures)} architectures",
            remedy='it needs "architectures": ["…ForCausalLM"]',
        )
    return architectures[0]


def engine_limits(config: EngineConfig, checkpoint: Checkpoint) -> EngineLimits:
    """Bounds from settings and from what the model was made for; ConfigError beyond that."""
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
