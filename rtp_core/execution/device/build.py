"""Programs and runner of a model on a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from rtp_core.api import (
    BoundAttention,
    CausalModel,
    EngineLimits,
    KVFormatId,
    KVMemory,
    KVSpace,
    ModelSpec,
)
from rtp_core.errors import CapacityError
from rtp_core.execution.device.accelerator import Accelerator
from rtp_core.execution.device.frame import FrameRing, Limits
from rtp_core.execution.device.programs import Programs
from rtp_core.execution.device.runner import DeviceRunner
from rtp_core.execution.device.step import DeviceAttention
from rtp_core.execution.prompt_scores import PromptScores
from rtp_core.text.structured.masks import GrammarMasks
from rtp_kernels.registry import resolve

CONTEXTS = (2048, 8192, 32768)
"""Bounds of text lengths for which attention is cut differently; then the longest text."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A model whose weights are on a device."""

    model: CausalModel
    spec: ModelSpec
    limits: EngineLimits
    accelerator: Accelerator


def step_limits(limits: EngineLimits, num_groups: int) -> Limits:
    """Bounds of every step of an engine."""
    longest = limits.max_model_len + limits.max_draft_tokens
    contexts = (*(one for one in CONTEXTS if one < longest), longest)
    return Limits(
        limits.max_num_seqs,
        limits.max_num_batched_tokens,
        limits.block_size,
        num_groups,
        contexts,
        limits.max_draft_tokens,
    )


def build_programs(placed: Placed, attention: BoundAttention, memory: KVMemory) -> Programs:
    """Programs over a frame of the engine's bounds; nothing is captured yet.

    One block of every group is taken for what padding computes, where there is any.
    `attention` is that of a backend whose `run` takes a `step.DeviceStep`.
    """
    spec, accelerator = placed.spec, placed.accelerator
    bounds = step_limits(placed.limits, len(spec.kv_groups))
    groups = range(len(spec.kv_groups))
    spare = [_spare(memory.space(group)) if bounds.max_drafts else 0 for group in groups]
    frames = FrameRing(bounds, accelerator, spare)
    next_tokens = resolve("next_tokens", accelerator.device, spec.dtype)
    reading = cast("DeviceAttention", attention)
    return Programs(placed.model, reading, frames, bounds, accelerator, next_tokens)


def build_runner(
    placed: Placed,
    attention: BoundAttention,
    memory: KVMemory,
    eos_token_ids: frozenset[int],
    masks: GrammarMasks | None = None,
) -> tuple[DeviceRunner, Programs]:
    """The runner, which draws on the device too, and its programs to capture."""
    from rtp_core.execution.device.sampler import SlotSampler

    programs = build_programs(placed, attention, memory)
    sampler = SlotSampler(
        placed.limits, placed.spec.vocab_size, eos_token_ids, placed.accelerator.device, masks
    )
    scores = PromptScores(placed.spec.vocab_size)
    return DeviceRunner(programs, memory, sampler, placed.accelerator, scores), programs


def _spare(space: KVSpace) -> int:
    block = space.allocate(KVFormatId.DENSE)
    if block is None:
        raise CapacityError("the KV cache has no block to spare", remedy="raise kv.memory")
    return block
