"""Weights as data: what a checkpoint holds, where each tensor goes, who moves the bytes.

The model says *where* (WeightTable), the core plans (WeightPlan), a loader decides order
and transport. No loader sees model code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Shard(StrEnum):
    """How a destination is split over tensor-parallel ranks.

    EXPERTS: rows are whole experts one after the other, and a rank holds some of them.
    """

    REPLICATED = "replicated"
    ROWS = "rows"
    COLUMNS = "columns"
    KV_HEADS = "kv_heads"
    VOCABULARY = "vocabulary"
    EXPERTS = "experts"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a checkpoint, under its Hugging Face name.

    `dtype` is the file's own name ("BF16", "F32", "Q4_1" …), `shape` has rows first,
    `unpermute_heads` > 0 asks to undo GGUF's rotary row order for that many heads;
    `stored_offset` was added to every weight before it was stored, and is to be taken off.
    `quantized` is a weight of a quantized safetensors checkpoint: it is placed part by part and
    arrives in the destination's dtype.
    """

    name: str
    file: str
    offset: int
    num_bytes: int
    shape: tuple[int, ...]
    dtype: str
    unpermute_heads: int = 0
    stored_offset: float = 0.0
    quantized: bool = False


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """A destination: final, fused, sharded.

    `linear` marks [out, in] weights that only linear operations read (and the embedding look-up
    of a tied head): these may keep the file's group codes beside the dense form.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    shard: Shard = Shard.REPLICATED
    linear: bool = False


@dataclass(frozen=True, slots=True)
class WeightRule:
    """Checkpoint tensor `source` fills `num_rows` rows of `destination` from `row_offset`."""

    source: str
    destination: str
    row_offset: int
    num_rows: int


@dataclass(frozen=True, slots=True)
class WeightTable:
    """All destinations of a model and the rules that fill them, every row exactly once.

    `ignored` are name suffixes a checkpoint may hold without use (``rotary_emb.inv_freq``).
    `alternatives` take the place of a destination's `rules` in checkpoints that hold their
    sources: the same weights, spelt otherwise. A source of stacked matrices [n, rows, columns]
    fills n * rows rows of a matrix.
    """

    parameters: tuple[ParameterSpec, ...]
    rules: tuple[WeightRule, ...]
    ignored: tuple[str, ...] = ()
    alternatives: tuple[WeightRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Placement:
    """One tensor of the checkpoint and the destination rows it fills."""

    tensor: TensorInfo
    rule: WeightRule


@dataclass(frozen=True, slots=True)
class WeightPlan:
    """Complete and checked: every destination row covered once, every file known."""

    parameters: tuple[ParameterSpec, ...]
    placements: tuple[Placement, ...]
    file_bytes: Mapping[str, int]

    @property
    def num_bytes(self) -> int:
        """Checkpoint bytes to read."""
        return sum(placement.tensor.num_bytes for placement in self.placements)


@dataclass(frozen=True, slots=True)
class LoadStats:
    """What a loader did."""

    strategy: str
    bytes_read: int
    seconds: float


class WeightSink(Protocol):
    """The core's receiving end: converts, transforms and stores one tensor."""

    def place(self, placement: Placement, data: memoryview) -> None:
        """`data` holds exactly the tensor's bytes; safe to reuse after return."""
        ...


class WeightLoader(Protocol):
    """Brings bytes from files to the sink; must place everything once or raise."""

    def load(
        self, plan: WeightPlan, sink: WeightSink, progress: Callable[[int], None]
    ) -> LoadStats:
        """`progress` takes the bytes done since the last call."""
        ...
