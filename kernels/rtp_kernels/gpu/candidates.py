"""Forms worth trying in the place of the one that serves: what a tuning run measures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rtp_kernels.gpu import forms
from rtp_kernels.paged_attention.choice import MAX_SPLITS

Form = Mapping[str, Any]
_SHARED_BYTES = 220 * 1024
_LIBRARY = {"form": "library"}
_GEMVS = ((8, 1024, 1), (4, 1024, 2), (4, 1024, 4), (4, 2048, 1), (2, 2048, 2), (8, 512, 2))
"""Outputs of a program, columns of a tile, tiles loaded up front."""
_FEW_ROWS = ((64, 128, 4), (64, 128, 6), (64, 256, 3), (64, 256, 4), (64, 64, 6), (128, 64, 6))
_MANY_ROWS = ((64, 128, 4), (64, 128, 5), (64, 64, 6), (128, 64, 4), (128, 64, 5))
"""Outputs and columns of a tile, tiles under way."""
_TILES = (
    (32, 2, 3), (32, 4, 3), (64, 2, 2), (64, 2, 3), (64, 4, 2), (64, 4, 3), (64, 4, 4),
    (128, 2, 2), (128, 4, 2), (128, 4, 3),
)  # fmt: skip
"""Keys of a tile, warps, tiles under way."""


def linear(slot: str, rows: int, arch: int) -> list[dict[str, Any]]:
    """Forms of a linear slot for a bucket's rows, as JSON; the library's among them.

    Without Hopper's instructions there is only the GEMV beside it.
    """
    operation, _, shape = slot.partition(" ")
    inputs = int(shape.split("x")[1])
    if rows == 1:
        found = [
            {"form": "gemv", "block_n": n, "block_k": k, "unroll": unroll, "warps": 4}
            for n, k, unroll in _GEMVS
            if k <= 2 * inputs
        ]
        return [*found, _LIBRARY]
    if arch != forms.HOPPER or rows > forms.MOST_SWAPPED_ROWS or inputs % 8:
        return [_LIBRARY]
    return [*_swapped(operation, rows, inputs), _LIBRARY]


def _swapped(operation: str, rows: int, inputs: int) -> list[dict[str, Any]]:
    splits = (1, 2, 4) if operation == forms.SPLITTABLE else (1,)
    found: list[dict[str, Any]] = []
    for n, k, stages in _FEW_ROWS if rows <= 32 else _MANY_ROWS:
        if not _fits(operation, rows, n, k, stages):
            continue
        for parts in splits:
            if parts > 1 and 2 * k * parts > inputs:
                continue
            for tiles in (True, False) if (n, stages) == (64, 4) else (True,):
                warps = 8 if n == 128 and rows > 32 else 4
                fields = {"block_n": n, "block_k": k, "stages": stages, "splits": parts}
                more = {"warps": warps, "tiles": tiles, "prefetch": 0}
                found.append({"form": "swapped", **fields, **more})
    return found


def _fits(operation: str, rows: int, n: int, k: int, stages: int) -> bool:
    weights = 2 * n if operation == forms.GATED else n
    return 2 * k * stages * (weights + max(16, forms.power_of_2(rows))) <= _SHARED_BYTES


def splits(form: Form, context: int) -> list[dict[str, Any]]:
    """Decoding cut into more and into fewer parts; none shorter than a tile."""
    now = form["splits"]
    others = (now // 4, now // 2, now * 2, now * 4)
    most = max(1, min(MAX_SPLITS, context // form["tile"]))
    return [{**form, "splits": one} for one in others if 1 <= one <= most]


def tiles(form: Form, head_dim: int) -> list[dict[str, Any]]:
    """Decoding with other tiles, of no more bytes than flow through a processor."""
    most = 128 if head_dim <= 128 else 64
    return [
        {**form, "tile": tile, "warps": warps, "stages": stages}
        for tile, warps, stages in _TILES
        if tile <= most
    ]


def early(form: Form) -> list[dict[str, Any]]:
    """With the first tile loaded before the wait, or after it."""
    return [{**form, "early": not form["early"]}]
