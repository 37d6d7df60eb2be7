"""What a checkpoint's configuration says about running it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from rtp_core.api import EngineLimits
from rtp_core.config.schema import EngineConfig
from rtp_core.errors import ConfigError, ModelError
from rtp_core.loading.checkpoint import Checkpoint


class DeviceDefaults(NamedTuple):
    """Settings that are unset, by device."""

    block_size: int
    max_num_seqs: int
    max_num_batched_tokens: int
    chunk_alignment: int


DEFAULTS = {"cpu": DeviceDefaults(16, 64, 1024, 1), "cuda": DeviceDefaults(32, 512, 8704, 2048)}
"""On a GPU 8,192 tokens of prompts fit beside a full batch that decodes, and chunks of prompts end
where attention of whole tiles can take up."""


def architecture_name(checkpoint: Checkpoint) -> str:
    """The one Hugging Face architecture config.json names; ModelError otherwise."""
    architectures = checkpoint.config.get("architectures")
    match architectures:
        case [str(name)]:
            return name
    raise ModelError(
        f"config.json of {checkpoint.root}: architectures is {architectures!r:.80}",
        remedy='it needs one name: "architectures": ["…ForCausalLM"]',
    )


def quantization_name(checkpoint: Checkpoint) -> str:
    """The quantized format of the weights as `model.quantization` names it, or ``none``."""
    if checkpoint.quantization is not None:
        return checkpoint.quantization.method
    return "gguf" if checkpoint.kind == "gguf" else "none"


def check_quantization(setting: str, checkpoint: Checkpoint) -> None:
    """ConfigError if `model.quantization` names another format than the checkpoint has."""
    found = quantization_name(checkpoint)
    if setting not in ("auto", found):
        raise ConfigError(
            "model.quantization",
            f"{setting} does not agree with {checkpoint.root}, which is {found}",
            remedy=f"use auto or {found}, or pass another checkpoint",
        )


def context_length(config: EngineConfig, longest: int) -> int:
    """Tokens a text may have; ConfigError if the setting is beyond the model's `longest`."""
    wanted = config.model.max_model_len or longest
    if wanted > longest:
        raise ConfigError(
            "model.max_model_len",
            f"{wanted} is more than the {longest} positions the model can be served with",
            remedy=f"use at most {longest}",
        )
    return wanted


def engine_limits(config: EngineConfig, max_model_len: int, device: str) -> EngineLimits:
    """Bounds from settings, for texts of at most `max_model_len` tokens."""
    unset, scheduling = DEFAULTS[device], config.scheduling
    max_tokens = scheduling.max_num_batched_tokens or unset.max_num_batched_tokens
    # More running sequences than tokens in a step would only wait for one another.
    max_seqs = min(scheduling.max_num_seqs or unset.max_num_seqs, max_tokens)
    left = max_tokens - max_seqs  # a chunk gets that much even beside a full batch
    return EngineLimits(
        max_model_len=max_model_len,
        max_num_seqs=max_seqs,
        max_num_batched_tokens=max_tokens,
        block_size=config.kv.block_size or unset.block_size,
        max_draft_tokens=config.speculation.max_draft_tokens if config.speculation.methods else 0,
        chunk_alignment=unset.chunk_alignment if left >= unset.chunk_alignment else 1,
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
