"""Coordinate descent over the forms of a step, and a memory of what was timed.

Whole steps are timed, not kernels: how launches overlap changes which form wins.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

Setting = Mapping[str, Mapping[str, Any]]
"""A step's form by slot, as JSON."""
Timer = Callable[[Setting], float]
"""Seconds of a step; infinity where it cannot run."""
LEAST_GAIN = 0.002
"""Smaller gains are within what repeated timings differ by."""
PASSES = 2


@dataclass(frozen=True, slots=True)
class Axis:
    """A direction to search in: forms of `slot` that may do better than the given one."""

    slot: str
    others: Callable[[Mapping[str, Any]], Sequence[Mapping[str, Any]]]


def descend(start: Setting, axes: Sequence[Axis], seconds: Timer) -> tuple[Setting, float]:
    """The best setting found and its seconds: axis by axis, until a pass gains nothing."""
    best, shortest = start, seconds(start)
    for _ in range(PASSES):
        before = shortest
        for axis in axes:
            for form in axis.others(best[axis.slot]):
                candidate = {**best, axis.slot: form}
                found = seconds(candidate)
                if found < shortest * (1 - LEAST_GAIN):
                    best, shortest = candidate, found
        if shortest == before:
            break
    return best, shortest


class Remembered:
    """A timer that asks another one once for each setting.

    `known` maps digests of settings to seconds, None for those that cannot run; `noted` is
    called after each new one, so that a search that is interrupted goes on from there.
    """

    def __init__(
        self,
        timer: Timer,
        known: MutableMapping[str, float | None],
        noted: Callable[[], None],
    ) -> None:
        self._timer = timer
        self._known = known
        self._noted = noted

    def __call__(self, setting: Setting) -> float:
        """Seconds, measured now or before."""
        key = digest(setting)
        if key not in self._known:
            found = self._timer(setting)
            self._known[key] = found if math.isfinite(found) else None
            self._noted()
        seconds = self._known[key]
        return math.inf if seconds is None else seconds


def digest(setting: Setting) -> str:
    """A name for a setting."""
    text = json.dumps(setting, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
