"""Samples in, the few numbers a report holds out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

Summary = dict[str, float | int | None]
PERCENTILES = (50, 90, 95, 99)


def spread(values: Sequence[float]) -> Summary:
    """``median``, ``p5``, ``p95`` and ``n``; None where nothing was measured."""
    ordered = sorted(values)
    shares = {"median": 0.5, "p5": 0.05, "p95": 0.95}
    return {**{name: _or_none(ordered, share) for name, share in shares.items()}, "n": len(ordered)}


def percentiles(values: Sequence[float]) -> Summary:
    """``mean``, ``p50``, ``p90``, ``p95``, ``p99`` and ``n``; None where nothing was measured."""
    ordered = sorted(values)
    mean = statistics.fmean(ordered) if ordered else None
    points = {f"p{point}": _or_none(ordered, point / 100) for point in PERCENTILES}
    return {"mean": mean, **points, "n": len(ordered)}


def quantile(ordered: Sequence[float], share: float) -> float:
    """Linear between the two nearest ranks, as NumPy's default; `ordered` ascends."""
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return min(ordered[high], ordered[low] + (ordered[high] - ordered[low]) * (at - low))


def _or_none(ordered: Sequence[float], share: float) -> float | None:
    return quantile(ordered, share) if ordered else None
