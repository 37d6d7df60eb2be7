"""Stop strings in growing text: what may begin one is held back until it is decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StopResult:
    """Text that is decided, and the stop string that ended it, if one did."""

    text: str
    matched: str | None = None


class StopStrings:
    """Looks for the first of `stops` to be completed; of two completed together, the longer.

    That choice does not depend on how the text arrives in pieces. At most the length of the
    longest stop string minus one characters are held back, and only those that could begin
    one. `include` keeps the stop string in the text.
    """

    def __init__(self, stops: Sequence[str], *, include: bool = False) -> None:
        self._stops = tuple(stops)
        self._include = include
        self._starts = frozenset(stop[0] for stop in stops)
        self._longest = max(map(len, stops), default=0)
        self._held = ""

    def feed(self, text: str, *, armed: bool = True) -> StopResult:
        """Take more text; while not `armed`, a stop string completed by it does not count."""
        if not self._held and self._starts.isdisjoint(text):
            return StopResult(text)
        whole = self._held + text
        match = self._first(whole) if armed else None
        if match is not None:
            start, stop = match
            self._held = ""
            end = start + len(stop) if self._include else start
            return StopResult(whole[:end], stop)
        decided = self._first_open(whole)
        self._held = whole[decided:]
        return StopResult(whole[:decided])

    def flush(self) -> str:
        """The text held back, when no more will come."""
        held, self._held = self._held, ""
        return held

    def _first(self, whole: str) -> tuple[int, str] | None:
        """Start and stop string of the first match that ends in the new text."""
        old = len(self._held)
        found = ((whole.find(stop, max(0, old - len(stop) + 1)), stop) for stop in self._stops)
        matches = [(start, stop) for start, stop in found if start >= 0]
        return min(matches, key=lambda one: (one[0] + len(one[1]), one[0]), default=None)

    def _first_open(self, whole: str) -> int:
        """Where the longest end of `whole` that could begin a stop string starts."""
        first = max(0, len(whole) - self._longest + 1)
        for start in range(first, len(whole)):
            end = whole[start:]
            if any(stop.startswith(end) for stop in self._stops):
                return start
        return len(whole)
