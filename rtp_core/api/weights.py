"""Weights as data: what a checkpoint holds, where each tensor goes, who moves the bytes.

The model says *where* (WeightTable), the core plans (WeightPlan), a loader decides order
and transport. No loader sees model code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable


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
class Cut:
    """The part [first, end) of a matrix that a tensor-parallel rank holds; None: all of them."""

    columns: tuple[int, int]
    rows: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """One tensor of the checkpoint, or a run of its rows, and the destination rows it fills.

    `cut` is taken of what the tensor holds, once that is weights again.
    """

    tensor: TensorInfo
    rule: WeightRule
    cut: Cut | None = None


@dataclass(frozen=True, slots=True)
class WeightPlan:
    """Complete and checked: every destination row covered once, every file known.

    `ignored` gives the reason for every tensor of the checkpoint that has no place, `file_times`
    when a file was last changed (ns) before it was planned, and `zero_rows` the rows
    [first, end) of a destination that no tensor fills, which are zeros: a vocabulary is padded
    until ranks hold equal parts.
    """

    parameters: tuple[ParameterSpec, ...]
    placements: tuple[Placement, ...]
    file_bytes: Mapping[str, int]
    ignored: Mapping[str, str] = field(default_factory=dict)
    file_times: Mapping[str, int] = field(default_factory=dict)
    zero_rows: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """Checkpoint bytes to read."""
        return sum(placement.tensor.num_bytes for placement in self.placements)


@dataclass(frozen=True, slots=True)
class LoadStats:
    """What a loader did. `peak_bytes` of host memory were taken besides the parameters."""

    strategy: str
    bytes_read: int
    seconds: float
    peak_bytes: int = 0


class WeightSink(Protocol):
    """The core's receiving end: converts, transforms and stores one tensor."""

    def place(self, placement: Placement, data: memoryview) -> None:
        """`data` holds exactly the tensor's bytes; safe to reuse after return."""
        ...


class Lane(Protocol):
    """One reading thread's way into a sink; only that thread uses it.

    Buffers are memory of the lane's own kind: aligned to pages, and pinned where a device
    copies from them.
    """

    def buffer(self, num_bytes: int) -> memoryview:
        """Memory to read into; given back when it is dropped."""
        ...

    def room(self, placement: Placement, begin: int, end: int) -> memoryview | None:
        """Memory of these bytes of the tensor that they may be read into without a buffer."""
        ...

    def filled(self, placement: Placement, num_bytes: int) -> None:
        """So many bytes have been read into a `room`."""
        ...

    def put(self, placement: Placement, begin: int, data: memoryview) -> None:
        """The tensor's bytes from `begin` on, whole units. `data` must stay until a fence."""
        ...

    def fence(self) -> Callable[[], None] | None:
        """Waits until everything put before has been taken out of its buffers; None: it has."""
        ...


@runtime_checkable
class PieceSink(Protocol):
    """A `WeightSink` that takes tensors in pieces, from any number of lanes, in any order."""

    def unit(self, placement: Placement) -> int:
        """Pieces of this tensor begin at multiples of so many bytes, and end there or with it."""
        ...

    def lane(self) -> Lane:
        """For the thread that calls."""
        ...


class WeightLoader(Protocol):
    """Brings bytes from files to the sink; must place everything once or raise."""

    def load(
        self, plan: WeightPlan, sink: WeightSink, progress: Callable[[int], None]
    ) -> LoadStats:
        """`progress` takes the bytes done since the last call."""
        ...
