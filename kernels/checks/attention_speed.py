"""How fast the attention kernels run: decoding against the card's copy bandwidth, prompts in FLOPs.

Every call of a timed graph works on a layer of its own, so that no keys lie in the L2 cache.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from checks.attention_launches import Build, scratch_of
from checks.timing import milliseconds, recorded
from torch import Tensor

from rtp_kernels.paged_attention import dense
from rtp_kernels.paged_attention.choice import DecodeChoice, RaggedChoice, choose, choose_ragged
from rtp_kernels.paged_attention.decode import decode
from rtp_kernels.paged_attention.plan import Geometry
from rtp_kernels.paged_attention.ragged import ragged, store
from rtp_kernels.paged_attention.tables import StepTables
from rtp_kernels.step_attention.triton import TritonStepAttention

HEADS, KV_HEADS, DIM = 32, 8, 128
MAX_BYTES = 6 << 30
"""Of keys and values in one timed graph."""
CALLS = 20
DECODE = (
    (1, 1024), (8, 1024), (32, 1024), (64, 1024), (128, 1024), (256, 1024),
    (8, 8192), (32, 8192), (1, 8192), (1, 32768),
)  # fmt: skip
VERIFY = tuple(itertools.product((1, 8, 32), (5, 8)))
PROMPTS = (
    (1, 512, 0), (2, 512, 0), (1, 1024, 0), (16, 1024, 0), (1, 2048, 0), (8, 2048, 0),
    (1, 4200, 0), (1, 8000, 0), (1, 8192, 0), (1, 2048, 2048), (1, 2048, 6144), (1, 8192, 8192),
)  # fmt: skip
RAGGED = tuple(
    RaggedChoice(block, tile, warps, stages, DIM)
    for block, tile, warps, stages in (
        (64, 64, 4, 2),
        (64, 64, 4, 3),
        (128, 64, 8, 2),
        (128, 64, 8, 3),
        (128, 128, 8, 2),
        (64, 128, 4, 2),
    )
)


def geometry_of(block: int) -> Geometry:
    return Geometry(HEADS, KV_HEADS, DIM, block, DIM**-0.5)


@dataclass(frozen=True)
class Shape:
    """Rows of `new` tokens at the end of `context` keys; `mixed`: lengths from 1 to context."""

    rows: int
    context: int
    new: int = 1
    block: int = 16
    mixed: bool = False

    @property
    def name(self) -> str:
        ending = (f", {self.new} new" if self.new > 1 else "") + (", mixed" if self.mixed else "")
        return f"{self.rows} x {self.context}{ending}"

    @property
    def lengths(self) -> list[int]:
        if not self.mixed:
            return [self.context] * self.rows
        step = (self.context - self.new) / max(1, self.rows - 1)
        return [round(self.new + step * n) for n in range(self.rows)]

    @property
    def keys(self) -> int:
        return sum(self.lengths)

    @property
    def bytes(self) -> int:
        """Of keys and values read by a layer."""
        return self.keys * KV_HEADS * DIM * 2 * 2

    @property
    def picked(self) -> DecodeChoice:
        return choose(geometry_of(self.block), self.rows, self.new, self.context)


def shapes() -> Iterator[Shape]:
    """All that are timed."""
    for block in (16, 32):
        yield from (Shape(rows, context, block=block) for rows, context in DECODE)
    yield Shape(64, 2048, mixed=True)
    yield Shape(32, 8192, mixed=True)
    yield from (Shape(rows, 1024, new) for rows, new in VERIFY)


class Layers:
    """Keys and values of as many layers as a graph needs, and the tables of a step."""

    def __init__(self, rows: int, context: int, block: int, lengths: list[int], new: int) -> None:
        pages = -(-context // block)
        one = rows * pages * block * KV_HEADS * DIM * 2
        self.count = max(2, min(CALLS, MAX_BYTES // (2 * one)))
        size = (self.count, KV_HEADS, rows * pages * block, DIM)
        self.keys = torch.empty(size, dtype=torch.bfloat16, device="cuda").normal_()
        self.values = torch.empty(size, dtype=torch.bfloat16, device="cuda").normal_()
        order = torch.randperm(rows * pages, device="cuda").int().view(rows, pages)
        at = torch.arange(context + 16, device="cuda")[:, None]
        angles = at * 1e6 ** (-torch.arange(0, DIM, 2, device="cuda") / DIM)
        self.tables = StepTables(
            order.contiguous(),
            torch.tensor(lengths, dtype=torch.int32, device="cuda"),
            torch.arange(rows + 1, dtype=torch.int32, device="cuda") * new,
            None, None, None,
            torch.cat((angles.cos(), angles.sin()), 1).float(),
        )  # fmt: skip
        gain = torch.ones(DIM, dtype=torch.bfloat16, device="cuda")
        self.norms = (gain, gain, 1e-6)
        width = (HEADS + 2 * KV_HEADS) * DIM
        self.qkv = torch.randn(self.count, rows * new, width, device="cuda").bfloat16()

    def planes(self, layer: int) -> tuple[Tensor, Tensor]:
        return self.keys[layer], self.values[layer]


def layers_of(shape: Shape) -> Layers:
    return Layers(shape.rows, shape.context, shape.block, shape.lengths, shape.new)


def decode_us(shape: Shape, layers: Layers, choice: DecodeChoice) -> float:
    """Microseconds a layer."""
    geometry = geometry_of(shape.block)
    scratch = scratch_of(geometry, choice, shape.rows, "cuda")
    calls = max(CALLS, layers.count)

    def run() -> None:
        for call in range(calls):
            layer = call % layers.count
            decode(
                layers.qkv[layer], layers.planes(layer), layers.tables, geometry, layers.norms,
                shape.new, scratch, context=shape.context, choice=choice,
            )  # fmt: skip

    return milliseconds(recorded(run).replay, 7, 1) * 1e3 / calls


def goal(shape: Shape) -> float | None:
    """Least part of the copy bandwidth, by what a layer reads."""
    if shape.new > 1 or shape.mixed:
        return None
    if (shape.rows, shape.context) == (1, 32768):
        return 0.70
    limits = ((512 << 20, 0.90), (256 << 20, 0.88), (128 << 20, 0.75))
    return next((part for limit, part in limits if shape.bytes >= limit), None)


def candidates(shape: Shape) -> list[DecodeChoice]:
    """Neighbours of what the table says."""
    picked = shape.picked
    forms = [(64, warps, stages) for warps in (2, 4) for stages in (2, 3, 4, 5)]
    forms += [(32, 1, 4), (32, 2, 3), (32, 4, 4), (128, 4, 2), (128, 4, 3), (128, 8, 3)]
    splits = {max(1, picked.splits // 2), picked.splits, min(64, picked.splits * 2)}
    return [
        replace(picked, tile=tile, warps=warps, stages=stages, splits=parts, early=early)
        for (tile, warps, stages), parts, early in itertools.product(
            forms, sorted(splits), (False, True)
        )
        if not (early and tile * shape.picked.query_rows > 64 * 32)
    ]


def decode_builds(tune: bool) -> list[Build]:
    """All compilations of the timed decode launches."""
    builds = []
    for shape in shapes():
        choices = candidates(shape) if tune and shape.block == 16 else []
        geometry = geometry_of(shape.block)
        builds += [Build(geometry, one, shape.new) for one in {*choices, shape.picked}]
    return builds


def prompt_choices(tune: bool) -> list[RaggedChoice]:
    """The table's, first; with `tune`, its neighbours."""
    return list(dict.fromkeys([choose_ragged(geometry_of(16)), *(RAGGED if tune else ())]))


def prompt_builds(tune: bool) -> list[Build]:
    return [Build(geometry_of(16), one) for one in prompt_choices(tune)]


@dataclass(frozen=True)
class PromptTime:
    """One way to attend, or what goes before: `ms` from a graph, `eager_ms` launched one by one.

    rate: TFLOP/s of causal attention alone; for `store`, GB/s of what it reads and writes.
    """

    prompts: str
    form: str
    ms: float
    eager_ms: float
    rate: float
    unit: str


def prompt_times(batch: int, length: int, prefix: int, tune: bool) -> Iterator[PromptTime]:
    """Every form on `batch` rows of `length` new tokens after `prefix`."""
    geometry = geometry_of(16)
    context = prefix + length
    layers = Layers(batch, context, 16, [context] * batch, length)
    pairs = batch * HEADS * length * (prefix + (length + 1) / 2)
    name = f"{batch} x {length}" + (f" after {prefix}" if prefix else "")
    step, runs = TritonStepAttention(uses_dense=True), ((length, prefix),) * batch

    def timed(form: str, call: Callable[..., object], *more: RaggedChoice) -> PromptTime:
        def run() -> None:
            for layer in range(layers.count):
                call(layer, *more)

        eager = milliseconds(run, 5, 1) / layers.count
        ms = milliseconds(recorded(run).replay, 5, 1) / layers.count
        if form == "store":
            moved = batch * length * (2 * HEADS + 5 * KV_HEADS) * DIM * 2
            return PromptTime(name, form, ms, eager, moved / ms / 1e6, "GB/s")
        return PromptTime(name, form, ms, eager, 4 * DIM * pairs / ms / 1e9, "TFLOP/s")

    def stored(layer: int) -> None:
        planes = layers.planes(layer)
        store(layers.qkv[layer], planes, layers.tables, geometry, layers.norms, length)

    def paged(layer: int, choice: RaggedChoice) -> None:
        planes = layers.planes(layer)
        ragged(layers.qkv[layer], planes, layers.tables, geometry, length, choice=choice)

    def cudnn(layer: int) -> None:
        tables, planes = layers.tables.block_tables, layers.planes(layer)
        dense.dense_chunk(layers.qkv[layer], planes, tables, geometry, length, prefix)

    def chosen(layer: int) -> None:
        planes = layers.planes(layer)
        step.ragged(layers.qkv[layer], planes, layers.tables, geometry, length, runs)

    yield timed("store", stored)
    for choice in prompt_choices(tune):
        form = f"Triton {choice.block} {choice.tile} w{choice.warps} s{choice.stages}"
        yield timed(form, paged, choice)
    yield timed("cuDNN", cudnn)
    yield timed("as a step chooses", chosen)
