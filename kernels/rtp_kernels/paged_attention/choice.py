"""How attention over pages is cut: splits, tiles, warps, by shape.

Measured shapes are in `gpu/configurations/paged_attention.json`, and what was tuned on the machine
at hand (`gpu.tuned`) comes before it. Other shapes follow the rules those measurements suggest:
enough programs to fill the processors, no split so short that joining them costs more than it
gains, and no more bytes in a tile than were measured to flow.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from rtp_kernels.paged_attention.plan import Geometry

MIN_QUERY_ROWS = 16
"""Rows of the smallest matrix instruction."""
MAX_QUERY_ROWS = 64
MAX_SPLITS = 64
_SPLIT_KEYS = ((2048, 64), (4096, 128), (16384, 256))
"""Up to a context of so many keys a split holds at least so many; beyond, 512."""


@dataclass(frozen=True, slots=True)
class DecodeChoice:
    """`tile` keys at a time in `stages` buffers; `early` loads the first tile before the wait.

    `query_rows` rows (queries times heads of a group, padded) in each of `tiles` programs a KV
    head; `width` is head_dim, padded.
    """

    query_rows: int
    tiles: int
    width: int
    tile: int
    warps: int
    stages: int
    splits: int
    early: bool


@dataclass(frozen=True, slots=True)
class RaggedChoice:
    """`block` query rows (tokens times heads of a group) against `tile` keys at a time."""

    block: int
    tile: int
    warps: int
    stages: int
    width: int


@functools.lru_cache(maxsize=4096)
def choose(geometry: Geometry, rows: int, new_tokens: int, context: int) -> DecodeChoice:
    """For `rows` rows of `new_tokens` new tokens and up to `context` keys."""
    wanted = new_tokens * geometry.group
    query_rows = min(MAX_QUERY_ROWS, max(MIN_QUERY_ROWS, power_of_2(wanted)))
    tiles = -(-wanted // query_rows)
    programs = rows * geometry.num_kv_heads * tiles
    tuned = _TUNED.get(shape_key(geometry), {}).get(step_key(rows, new_tokens, context))
    found = tuned or measured(
        "verify" if new_tokens > 1 else "decode",
        head_dim=geometry.head_dim,
        query_rows=query_rows,
        programs=programs,
        context=visible(geometry, context),
    )
    splits = found.get("splits") or split_rule(
        programs, query_rows, visible(geometry, context), found["tile"]
    )
    return DecodeChoice(
        query_rows,
        tiles,
        power_of_2(geometry.head_dim),
        found["tile"],
        found["warps"],
        found["stages"],
        splits,
        found.get("early", False),
    )


def prefer(table: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Put these before what is shipped: shape of heads -> step -> fields of a DecodeChoice."""
    _TUNED.clear()
    _TUNED.update(table)
    choose.cache_clear()


def shape_key(geometry: Geometry) -> str:
    """As tables name a shape: query heads, KV heads, head_dim, and a window if there is one."""
    window = "" if geometry.window is None else f"w{geometry.window}"
    return f"{geometry.num_heads}x{geometry.num_kv_heads}x{geometry.head_dim}{window}"


def step_key(rows: int, new_tokens: int, context: int) -> str:
    """As tables name a step; rows are a power of two, `context` the bound of its program."""
    return f"{rows}x{new_tokens}/{context}"


_TUNED: dict[str, Mapping[str, Mapping[str, Any]]] = {}


@functools.lru_cache(maxsize=64)
def choose_ragged(geometry: Geometry) -> RaggedChoice:
    """For prompts and chunks."""
    found = measured("ragged", head_dim=geometry.head_dim)
    return RaggedChoice(
        found["block"],
        found["tile"],
        found["warps"],
        found["stages"],
        power_of_2(geometry.head_dim),
    )


def split_rule(programs: int, query_rows: int, context: int, tile: int) -> int:
    """A power of two: about four programs a processor (of 132), fewer when each is larger."""
    least = next((keys for limit, keys in _SPLIT_KEYS if context <= limit), 512)
    if query_rows > MIN_QUERY_ROWS:
        least *= 2
    least = max(least, tile)
    filling = power_of_2(-(-(512 * MIN_QUERY_ROWS // query_rows) // programs))
    return max(1, min(MAX_SPLITS, filling, power_of_2(-(-context // least))))


def visible(geometry: Geometry, context: int) -> int:
    """Keys a query can see."""
    return context if geometry.window is None else min(context, geometry.window)


def power_of_2(value: int) -> int:
    """The smallest that is not below `value`."""
    return 1 << max(0, value - 1).bit_length()


def measured(kind: str, **shape: int) -> dict[str, Any]:
    """The first entry of the table whose limits (`max_…`) the shape keeps.

    The last entry of each kind has no limits.
    """
    for entry in _table()[kind]:
        limits = entry["if"]
        if all(shape[name.removeprefix("max_")] <= limit for name, limit in limits.items()):
            return entry
    raise LookupError(f"paged_attention.json: no {kind!r} entry without limits")


@functools.cache
def _table() -> dict[str, list[dict[str, Any]]]:
    file = files("rtp_kernels.gpu") / "configurations" / "paged_attention.json"
    return json.loads(file.read_text())
