"""Percentiles of the newest samples, for a page that redraws every second."""

from __future__ import annotations

from collections import deque

WINDOW = 1024


class LatencyWindow:
    """The last `size` samples in seconds; older ones are forgotten."""

    def __init__(self, size: int = WINDOW) -> None:
        self._samples: deque[float] = deque(maxlen=size)

    def add(self, seconds: float) -> None:
        """Take one sample."""
        self._samples.append(seconds)

    def summary(self) -> dict[str, float | int]:
        """``p50`` and ``p95`` by nearest rank, and ``n`` samples; zeros while empty."""
        ordered = sorted(self._samples)
        return {"p50": rank(ordered, 0.50), "p95": rank(ordered, 0.95), "n": len(ordered)}


def rank(ordered: list[float], share: float) -> float:
    """The nearest-rank percentile of an ascending list; 0.0 for an empty one."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
