"""Programs of an engine, from its bounds."""

from __future__ import annotations

from rtp_core.api import CausalModel, EngineLimits, ModelSpec
from rtp_core.execution.device.accelerator import Accelerator
from rtp_core.execution.device.frame import FrameRing, Limits
from rtp_core.execution.device.programs import Programs
from rtp_core.execution.device.step import DeviceAttention
from rtp_kernels.registry import resolve

CONTEXTS = (2048, 8192, 32768)
"""Bounds of text lengths for which attention is cut differently; then the longest text."""


def step_limits(limits: EngineLimits, num_groups: int) -> Limits:
    """Bounds of every step of an engine."""
    longest = limits.max_model_len
    contexts = (*(one for one in CONTEXTS if one < longest), longest)
    return Limits(
        limits.max_num_seqs, limits.max_num_batched_tokens, limits.block_size, num_groups, contexts
    )


def build_programs(
    model: CausalModel,
    attention: DeviceAttention,
    spec: ModelSpec,
    limits: EngineLimits,
    accelerator: Accelerator,
) -> Programs:
    """Programs over a frame of the engine's bounds; nothing is captured yet."""
    bounds = step_limits(limits, len(spec.kv_groups))
    frames = FrameRing(bounds, accelerator)
    next_tokens = resolve("next_tokens", accelerator.device, spec.dtype)
    return Programs(model, attention, frames, bounds, accelerator, next_tokens)
