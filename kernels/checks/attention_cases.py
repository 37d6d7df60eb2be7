"""Steps whose results are compared on the device: every option, at sizes that occur."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from checks.attention_launches import Build
from checks.attention_steps import Step, make_step, plan_of, wide_norms
from torch.nn import functional

from rtp_kernels.paged_attention.choice import DecodeChoice, RaggedChoice, choose, choose_ragged
from rtp_kernels.paged_attention.plan import Geometry
from rtp_kernels.paged_attention.reference import split_heads, visible, write
from rtp_kernels.soft_cap.reference import soft_cap


@dataclass(frozen=True)
class Comparison:
    """`new` of decode is one number; of ragged, a list. `choice` overrides the table's."""

    name: str
    geometry: Geometry
    lengths: tuple[int, ...]
    new: int | tuple[int, ...] = 1
    context: int = 1024
    options: dict[str, Any] = field(default_factory=dict)
    choice: DecodeChoice | RaggedChoice | None = None

    @property
    def picked(self) -> DecodeChoice | RaggedChoice:
        if self.choice is not None:
            return self.choice
        if isinstance(self.new, tuple):
            return choose_ragged(self.geometry)
        return choose(self.geometry, len(self.lengths), self.new, self.context)

    @property
    def build(self) -> Build:
        new = 0 if isinstance(self.new, tuple) else self.new
        options = self.options
        return Build(
            self.geometry, self.picked, new, options.get("rotary_dim"),
            options.get("norm", True) is not None, options.get("trees", False),
            options.get("writes") is not None, True,
        )  # fmt: skip

    def step(self) -> Step:
        new = self.new if isinstance(self.new, tuple) else (self.new,) * len(self.lengths)
        options = {"norm": torch.bfloat16, **self.options}
        return make_step(
            self.geometry, self.lengths, new, dtype=torch.bfloat16, device="cuda", **options
        )


def geometry_of(group: int = 4, dim: int = 128, kv_heads: int = 8, **more: Any) -> Geometry:
    """`more`: block, window, softcap."""
    window, softcap = more.get("window"), more.get("softcap")
    block = more.get("block", 16)
    return Geometry(group * kv_heads, kv_heads, dim, block, dim**-0.5, window, softcap)


def some(count: int, most: int, least: int = 1, seed: int = 0) -> tuple[int, ...]:
    """Random lengths."""
    chance = random.Random(seed)
    return tuple(chance.randint(least, most) for _ in range(count))


def decoding() -> Iterator[Comparison]:
    """One new token a row."""
    plain = geometry_of()
    edges = (1, 2, 64, 65, 66, 0, 127, 128, 129, 511, 512, 513, 1023, 1024, 1, 577)
    for rows in (1, 2, 8, 16, 32, 64, 200):
        lengths = (edges + some(200, 1200))[:rows] if rows > 2 else (1025, 64)[:rows]
        yield Comparison(f"decode {rows} rows", plain, lengths)
    yield Comparison("decode 1 x 32k", plain, (32768,), context=32768)
    yield Comparison("decode 8 x 8k", plain, some(8, 8192), context=8192)
    yield Comparison("decode 1 x 8k, short row", plain, (70,), context=8192)
    for block in (8, 32, 64, 128):
        yield Comparison(f"pages of {block}", geometry_of(block=block), some(8, 1000))
    for dim in (64, 80, 96, 256):
        yield Comparison(f"heads of {dim}", geometry_of(dim=dim), some(6, 700))
        yield Comparison(f"heads of {dim}, 40 rows", geometry_of(dim=dim), some(40, 700))
    for group, kv_heads in ((1, 32), (2, 8), (7, 4), (8, 8), (16, 2), (12, 1), (71, 1)):
        shape = geometry_of(group, 64, kv_heads)
        yield Comparison(f"group of {group}", shape, some(5, 900))
    for window in (1, 128, 4096):
        yield Comparison(f"window {window}", geometry_of(window=window), (*some(6, 3000), 1, 0))
    yield Comparison("softcap", geometry_of(softcap=30.0), some(8, 900))
    yield Comparison("softcap and window", geometry_of(softcap=5.0, window=200), some(20, 900))
    for rotary in (0, 32, 64):
        yield Comparison(f"rotary {rotary}", plain, some(8, 500), options={"rotary_dim": rotary})
    yield Comparison("no norm", plain, some(8, 500), options={"norm": None})
    bare = {"norm": None, "rotary_dim": 0}
    yield Comparison("keys as they came", plain, some(8, 500), options=bare)
    yield Comparison("float32 norms", plain, some(8, 500), options={"norm": torch.float32})
    quiet = [n % 3 != 0 for n in range(12)]
    yield Comparison("rows that do not write", plain, some(12, 900), options={"writes": quiet})


def verifying() -> Iterator[Comparison]:
    """Several new tokens a row, in chains and trees."""
    plain = geometry_of()
    for trees in (False, True):
        kind = "tree" if trees else "chain"
        for rows, new in ((1, 4), (1, 5), (8, 2), (8, 5), (8, 8), (32, 5), (3, 16), (40, 3)):
            lengths = (*some(rows - 1, 1100, new, new), new)
            options = {"trees": trees}
            yield Comparison(f"{kind} {rows} x {new}", plain, lengths, new, options=options)
        windowed = geometry_of(window=100, softcap=20.0)
        yield Comparison(
            f"{kind}, window", windowed, (5, 0, 99, 104, 105, 700), 5, options={"trees": trees}
        )
        wide = geometry_of(16, 64, 2)
        yield Comparison(f"{kind}, group of 16", wide, some(4, 900, 9), 9, options={"trees": trees})
        large = geometry_of(dim=256, kv_heads=4)
        yield Comparison(
            f"{kind}, heads of 256", large, some(4, 500, 5), 5, options={"trees": trees}
        )


def prompts() -> Iterator[Comparison]:
    """Rows of any number of new tokens."""
    mixed = ((300, 1, 64, 2048, 0, 777, 65, 1500, 40), (300, 1, 64, 1000, 7, 1, 64, 129, 5))
    yield Comparison("prompts, mixed", geometry_of(), *mixed)
    yield Comparison("one prompt", geometry_of(), (2048,), (2048,))
    yield Comparison("chunk after 6144", geometry_of(), (8192,), (2048,))
    for block in (8, 32, 128):
        yield Comparison(f"prompts, pages of {block}", geometry_of(block=block), *mixed)
    for dim in (64, 80, 96, 256):
        yield Comparison(f"prompts, heads of {dim}", geometry_of(dim=dim, kv_heads=2), *mixed)
    for group, kv_heads in ((1, 8), (7, 2), (8, 2), (16, 1), (71, 1)):
        shape = geometry_of(group, 64, kv_heads)
        yield Comparison(f"prompts, group of {group}", shape, *mixed)
    for window in (1, 100, 1024):
        yield Comparison(f"prompts, window {window}", geometry_of(window=window), *mixed)
    yield Comparison("prompts, softcap", geometry_of(softcap=20.0), *mixed)
    partial = {"rotary_dim": 32}
    yield Comparison("prompts, rotary 32", geometry_of(dim=80), *mixed, options=partial)
    yield Comparison("prompts, no norm", geometry_of(), *mixed, options={"norm": None})
    bare = {"norm": None, "rotary_dim": 0}
    yield Comparison("prompts, keys as they came", geometry_of(), *mixed, options=bare)
    for choice in (RaggedChoice(128, 64, 8, 3, 128), RaggedChoice(128, 128, 8, 2, 128)):
        name = f"prompts, blocks of {choice.block}, tiles of {choice.tile}"
        yield Comparison(name, geometry_of(), *mixed, choice=choice)


def torch_bf16(step: Step) -> torch.Tensor:
    """torch's attention in bfloat16 on gathered keys: what the error is measured against.

    Its q and k are normed and rotated in float32 and rounded once, as the kernels round theirs,
    and its weights are bfloat16 too: it rounds where they do.
    """
    geometry, plan = step.geometry, plan_of(step, True)
    dtype = step.qkv.dtype
    live = [bool(row) for row, n in zip(step.rows, step.new, strict=True) for _ in range(n)]
    rows = torch.tensor(live, device=step.qkv.device)
    heads = split_heads(step.qkv[rows].float(), plan, geometry, wide_norms(step))
    q, k, v = (x.to(dtype) for x in heads)
    planes = tuple(plane.nan_to_num(0.0) for plane in step.planes)
    write(planes[0], planes[1], k, v, plan)
    out = torch.zeros(step.tokens, geometry.num_heads, geometry.head_dim, device=q.device)
    live_out = torch.empty_like(q)
    for keys in plan.rows:
        slots = keys.index
        if slots is None:
            slots = torch.arange(keys.num_keys, device=q.device) + keys.first_slot
        at = slice(keys.begin, keys.begin + keys.num_new)
        seen = visible(keys, geometry.window, q.device)
        key, value = (plane[:, slots].repeat_interleave(geometry.group, 0) for plane in planes)
        query = q[at].transpose(0, 1)
        if geometry.softcap is None:
            done = functional.scaled_dot_product_attention(
                query[None], key[None], value[None], attn_mask=seen, scale=geometry.scale
            )[0]
        else:
            scores = soft_cap(
                (query @ key.transpose(1, 2)).float() * geometry.scale, geometry.softcap
            )
            done = scores.masked_fill(~seen, -torch.inf).softmax(-1).to(dtype) @ value
        live_out[at] = done.transpose(0, 1)
    out[rows] = live_out.float()
    return out.flatten(1)
