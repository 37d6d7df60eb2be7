"""Percentiles of the newest samples, for a page that redraws every second."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

WINDOW = 1024
_SHARES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


class LatencyWindow:
    """The last `size` samples in seconds; older ones are forgotten."""

    def __init__(self, size: int = WINDOW) -> None:
        self._samples: deque[float] = deque(maxlen=size)
        self._fresh: deque[float] = deque(maxlen=size)

    def add(self, seconds: float) -> None:
        """Take one sample."""
        self._samples.append(seconds)
        self._fresh.append(seconds)

    def summary(self) -> dict[str, float | int]:
        """``p50``, ``p95`` and ``p99`` by nearest rank, and ``n`` samples; zeros while empty."""
        return _summary(self._samples)

    def take_fresh(self) -> dict[str, float | int] | None:
        """The summary of the samples since the last call; None when there were none."""
        found = _summary(self._fresh) if self._fresh else None
        self._fresh.clear()
        return found


def _summary(samples: Iterable[float]) -> dict[str, float | int]:
    ordered = sorted(samples)
    ranks = {name: rank(ordered, share) for name, share in _SHARES.items()}
    return {**ranks, "n": len(ordered)}


def rank(ordered: list[float], share: float) -> float:
    """The nearest-rank percentile of an ascending list; 0.0 for an empty one."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
