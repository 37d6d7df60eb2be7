"""Offers: named factories that plugins return from hooks at set-up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from rtp_core.api.model import ModelSpec
from rtp_core.api.services import Clock, StepCosts
from rtp_core.api.weights import TensorInfo


class Role(StrEnum):
    """Kinds of part the core knows."""

    LOADER = "loader"
    SCHEDULER = "scheduler"
    KV_STORE = "kv_store"
    KV_TIER = "kv_tier"
    KV_FORMAT = "kv_format"
    SPECULATOR = "speculator"
    ENCODER = "encoder"
    TRANSPORT = "transport"
    ROUTER = "router"
    SERVE_ROLE = "role"
    MODEL = "model"
    ATTENTION = "attention"
    COMMAND = "command"
    ROUTES = "routes"
    TOOL_PARSER = "tool_parser"
    REASONING_PARSER = "reasoning_parser"
    DRAFT_TRAINER = "draft_trainer"


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Bounds the scheduler keeps and parts may size by.

    A prompt that does not fit into a step is cut at a multiple of `chunk_alignment` tokens.
    """

    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    block_size: int
    max_draft_tokens: int
    chunk_alignment: int = 1


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What a factory may read. `model` is None for offers built before a model is known.

    `tensors` are the checkpoint's by name, for model families that find their weights there
    instead of declaring them. Until the model is known, `limits.max_model_len` is what the
    configuration asks for, 0 if nothing. After `stall_timeout_s` seconds without a byte of
    weights a loader gives up.
    """

    device: str
    dtype: str
    limits: EngineLimits
    clock: Clock
    costs: StepCosts
    model: ModelSpec | None = None
    tensors: Mapping[str, TensorInfo] = field(default_factory=dict)
    stall_timeout_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Offer:
    """`build(context, options)` returns the role's object; options are the plugin's own.

    The object's type by role: `api` protocols WeightLoader, SchedulingPolicy, KVStore,
    KVTier, KVFormat, Speculator, (MediaPlanner, ModalityEncoder), KVTransport,
    ModelFamily (named by Hugging Face architecture), AttentionBackend, ToolFormat,
    ReasoningFormat, DraftMethod.
    """

    role: Role
    name: str
    build: Callable[[BuildContext, Any], Any]

    @property
    def key(self) -> str:
        """``role:name``, as manifests and listings spell it."""
        return f"{self.role.value}:{self.name}"
