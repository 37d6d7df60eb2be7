"""Steps over paged memory, made at random, and what attention must make of them in float32.

Everything a kernel must not read is NaN: slots no row holds, slots past a row's keys, slots of
tokens the step itself stores, keys before every window.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rtp_kernels.paged_attention.plan import AttentionPlan, Geometry, Row, row_keys
from rtp_kernels.paged_attention.reference import paged_attention
from rtp_kernels.paged_attention.rotary import rotary_tables
from rtp_kernels.paged_attention.tables import StepTables

Planes = tuple[Tensor, Tensor]


@dataclass
class Step:
    """Tables and tensors of a step; `rows` is None where a row is padding."""

    geometry: Geometry
    rows: list[Row | None]
    new: list[int]
    tables: StepTables
    qkv: Tensor
    planes: Planes
    norms: tuple[Tensor, Tensor, float] | None
    inv_freq: Tensor

    @property
    def tokens(self) -> int:
        return sum(self.new)

    @property
    def max_new(self) -> int:
        return max(self.new, default=0)


def make_step(  # noqa: PLR0913 - the axes along which steps differ
    geometry: Geometry,
    lengths: Sequence[int],
    new: Sequence[int],
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    rotary_dim: int | None = None,
    norm: torch.dtype | None = torch.float32,
    trees: bool = False,
    writes: Sequence[bool] | None = None,
    gap: int = 0,
    seed: int = 0,
) -> Step:
    """Rows of `lengths` keys (0 = padding), the last `new` of them new. `gap` parts the heads."""
    chance = random.Random(seed)
    generator = torch.Generator(device).manual_seed(seed)
    block, dim = geometry.block_size, geometry.head_dim
    counts = [-(-length // block) for length in lengths]
    ids = chance.sample(range(sum(counts) + 3), sum(counts))
    used = set(ids)
    rows: list[Row | None] = []
    for number, (length, fresh) in enumerate(zip(lengths, new, strict=True)):
        blocks = [ids.pop() for _ in range(counts[number])]
        parents = [chance.randrange(-1, i) for i in range(fresh)] if trees else None
        writing = writes is None or writes[number]
        row = Row(length - fresh, fresh, blocks, parents, writing) if length else None
        rows.append(row)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device, dtype=torch.float32)

    width = (geometry.num_heads + 2 * geometry.num_kv_heads) * dim
    qkv = normal(sum(new), width).to(dtype)
    slots = (sum(counts) + 3) * block
    planes = tuple(
        torch.full((geometry.num_kv_heads, slots + gap, dim), torch.nan, device=device).to(dtype)[
            :, :slots
        ]
        for _ in range(2)
    )
    for row in filter(None, rows):
        first = 0 if geometry.window is None else max(0, row.start + 1 - geometry.window)
        kept = slots_of(row, first, row.start, block, device)
        for plane in planes:
            plane[:, kept] = normal(geometry.num_kv_heads, len(kept), dim).to(dtype)
    gains = None
    if norm is not None:
        gains = (1 + normal(dim) / 4).to(norm), (1 + normal(dim) / 4).to(norm), 1e-6
    rotary_dim = dim if rotary_dim is None else rotary_dim
    inv_freq = 10000.0 ** (-torch.arange(0, rotary_dim, 2, device=device) / max(rotary_dim, 1))
    longest = max([*lengths, 1]) + 16
    spare = next(one for one in range(slots // block) if one not in used)
    tables = _tables(rows, list(lengths), list(new), inv_freq, longest, writes, trees, spare)
    return Step(geometry, rows, list(new), tables, qkv, (planes[0], planes[1]), gains, inv_freq)


def slots_of(
    row: Row, first: int, end: int, block: int, device: str | torch.device = "cpu"
) -> Tensor:
    """Of the tokens from position `first` to `end`."""
    at = [row.blocks[t // block] * block + t % block for t in range(first, end)]
    return torch.tensor(at, dtype=torch.int64, device=device)


def generations(parents: Sequence[int]) -> list[int]:
    """Depth of every node of a tree below its root's parent."""
    depths: list[int] = []
    for parent in parents:
        depths.append(depths[parent] + 1 if parent >= 0 else 0)
    return depths


def _bits(parents: Sequence[int]) -> list[int]:
    masks: list[int] = []
    for child, parent in enumerate(parents):
        masks.append((masks[parent] if parent >= 0 else 0) | 1 << child)
    return masks


def _tables(  # noqa: PLR0913, PLR0917
    rows: list[Row | None],
    lengths: list[int],
    new: list[int],
    inv_freq: Tensor,
    longest: int,
    writes: Sequence[bool] | None,
    trees: bool,
    spare: int,
) -> StepTables:
    """Entries past a row's blocks name one that no row holds."""
    device = inv_freq.device

    def ints(values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int32, device=device)

    widest = max([len(row.blocks) for row in rows if row] + [1])
    table = [
        [*row.blocks, *[spare] * (widest - len(row.blocks))] if row else [spare] * widest
        for row in rows
    ]
    depths, masks = None, None
    if trees:
        parents = [row.parents if row else [-1] * n for row, n in zip(rows, new, strict=True)]
        depths = ints([depth for one in parents for depth in generations(one or [])])
        masks = ints([mask for one in parents for mask in _bits(one or [])])
    angles = torch.arange(longest, device=device)[:, None] * inv_freq
    return StepTables(
        block_tables=ints(table) if rows else torch.zeros(0, 1, dtype=torch.int32, device=device),
        lengths=ints(lengths),
        starts=ints([sum(new[:n]) for n in range(len(new) + 1)]),
        depths=depths,
        ancestors=masks,
        writes=None if writes is None else torch.tensor(list(writes), device=device),
        rotary=torch.cat((angles.cos(), angles.sin()), dim=1).float(),
    )


def plan_of(step: Step, writing: bool) -> AttentionPlan:
    """The step as the reference takes it, padding rows left out."""
    geometry, device = step.geometry, step.qkv.device
    keys, slots, positions, writers, begin = [], [], [], [], 0
    for row in filter(None, step.rows):
        keys.append(row_keys(row, begin, geometry.block_size, device))
        depths = range(row.num_new) if row.parents is None else generations(row.parents)
        positions += [row.start + depth for depth in depths]
        if writing or row.writes:
            end = row.start + row.num_new
            slots += slots_of(row, row.start, end, geometry.block_size).tolist()
            writers += range(begin, begin + row.num_new)
        begin += row.num_new
    cos, sin = rotary_tables(step.inv_freq, torch.tensor(positions, device=device), torch.float32)
    index = torch.tensor(writers, dtype=torch.int64, device=device)
    at = torch.tensor(slots, dtype=torch.int64, device=device)
    return AttentionPlan(begin, tuple(keys), at, -1, index, cos, sin, None)


def live_tokens(step: Step) -> Tensor:
    """[tokens] bool: tokens of rows that are no padding."""
    flags = [bool(row) for row, n in zip(step.rows, step.new, strict=True) for _ in range(n)]
    return torch.tensor(flags, dtype=torch.bool, device=step.qkv.device)


def expected(step: Step) -> tuple[Tensor, Planes, Tensor]:
    """(out, planes after, lse) in float32, from the step's values as they are rounded.

    Gains of the norms are widened too: next to a gain in half precision the definition rounds
    the normed head, which kernels need not do.

    Rows that do not write see their new tokens all the same: those are stored already.
    """
    geometry, live, norms = step.geometry, live_tokens(step), wide_norms(step)
    heads = geometry.num_heads
    out = torch.zeros(step.tokens, heads * geometry.head_dim, device=step.qkv.device)
    lse = torch.full((step.tokens, heads), -torch.inf, device=step.qkv.device)
    whole = tuple(plane.float() for plane in step.planes)
    part = torch.empty(int(live.sum()), heads, device=step.qkv.device)
    qkv = step.qkv[live].float()
    # Keys before every window are NaN, which a mask of weights does not hide.
    readable = tuple(plane.nan_to_num(0.0) for plane in whole)
    out[live] = paged_attention(
        qkv, (readable[0], readable[1]), plan_of(step, True), geometry, norms, part
    )
    lse[live] = part
    after = tuple(plane.clone() for plane in whole)
    sizeless = replace(plan_of(step, False), rows=())
    paged_attention(qkv, (after[0], after[1]), sizeless, geometry, norms)
    return out, (after[0], after[1]), lse


def wide_norms(step: Step) -> tuple[Tensor, Tensor, float] | None:
    """The norms with gains in float32."""
    if step.norms is None:
        return None
    q_gain, k_gain, eps = step.norms
    return q_gain.float(), k_gain.float(), eps


def stored_right(step: Step, planes: Planes) -> bool:
    """Whether the step's planes hold what `planes` (float32, of `expected`) say.

    A key that was normed or rotated may be off by its one rounding, and by the order in which
    float32 added up. Values, keys as they came, and slots the step does not write are equal.
    """
    keys, wanted = step.planes[0].float(), planes[0]
    right = _equal(step.planes[1].float(), planes[1])
    same = torch.ones(keys.shape[1], dtype=torch.bool, device=keys.device)
    if step.norms is not None or step.tables.rotary.shape[1]:
        slots = plan_of(step, False).slots
        same[slots] = False
        rounding = torch.finfo(step.planes[0].dtype).eps / 2
        right &= torch.allclose(keys[:, slots], wanted[:, slots], rtol=rounding, atol=1e-5)
    return right and _equal(keys[:, same], wanted[:, same])


def _equal(got: Tensor, wanted: Tensor) -> bool:
    return bool(((got == wanted) | (got.isnan() & wanted.isnan())).all())
