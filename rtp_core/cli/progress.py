"""Progress: a bar with speed and time left on a terminal, else a log line now and then."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from rtp_core.observe.log import line

log = logging.getLogger("rtp.loading")
_WIDTH = 30
_REDRAW_S = 0.1
_LOG_S = 5.0
_WINDOW_S = 5.0
"""Speed is that of the last seconds: storage that stalls shows at once."""
_END_OF_LINE = "\x1b[K"


@dataclass(frozen=True, slots=True)
class Unit:
    """What is counted: `size` of it are one in print; `name` follows the number, if any.

    In the log, amounts are called `field`, speed `speed`.
    """

    size: float
    name: str
    field: str
    speed: str


BYTES = Unit(1e6, " MB", "bytes", "mb_per_s")
ITEMS = Unit(1, "", "done", "per_s")


class Speed:
    """Bytes a second of the last `_WINDOW_S`, and of all until there are so many."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, now_s: float, done: int) -> None:
        """`done` bytes in all are there now."""
        self._seen.append((now_s, done))
        while len(self._seen) > 2 and self._seen[1][0] <= now_s - _WINDOW_S:
            self._seen.popleft()

    @property
    def bytes_per_s(self) -> float | None:
        """None until two moments are known."""
        (first_s, first), (last_s, last) = self._seen[0], self._seen[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else None


class ProgressBar:
    """Redraws one line on `stream` while it is a terminal; else logs a line every few seconds.

    What ends within them logs nothing.
    """

    def __init__(
        self,
        label: str,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        unit: Unit = BYTES,
    ) -> None:
        self._label = label
        self._unit = unit
        self._stream = stream if stream is not None else sys.stderr
        self._clock = clock
        self._speed = Speed()
        self._due_s: float | None = None
        self._ended = False

    def __call__(self, done: int, total: int) -> None:
        """`done` of `total`; may be called as often as one likes, also after the end."""
        if self._ended:
            return
        now_s = self._clock()
        self._speed.add(now_s, done)
        self._ended = done >= total
        if self._stream.isatty():
            if self._ended or self._due_s is None or now_s >= self._due_s:
                self._due_s = now_s + _REDRAW_S
                self._draw(done, total)
        elif self._due_s is None:
            self._due_s = now_s + _LOG_S
        elif now_s >= self._due_s:
            self._due_s = now_s + _LOG_S
            self._log(done, total)

    def _draw(self, done: int, total: int) -> None:
        percent = 100 if total == 0 else 100 * done // total
        filled = _WIDTH * percent // 100
        bar = "#" * filled + "." * (_WIDTH - filled)
        size, name = self._unit.size, self._unit.name
        amounts = f"{done / size:.0f} of {total / size:.0f}{name}"
        speed = self._speed.bytes_per_s
        moving = "" if speed is None else f"  {speed / size:.0f}{name}/s"
        if moving and not self._ended:
            moving += f", {_duration(self._left_s(done, total))} left"
        end = "\n" if self._ended else ""
        self._stream.write(
            f"\r{self._label} [{bar}] {percent:3d} %  {amounts}{moving}{_END_OF_LINE}{end}"
        )
        self._stream.flush()

    def _log(self, done: int, total: int) -> None:
        log.info(
            line(
                self._label,
                **{
                    self._unit.field: done,
                    f"of_{self._unit.field}": total,
                    self._unit.speed: (self._speed.bytes_per_s or 0.0) / self._unit.size,
                },
                left_s=self._left_s(done, total),
            )
        )

    def _left_s(self, done: int, total: int) -> float | None:
        """None while nothing moves."""
        speed = self._speed.bytes_per_s
        return (total - done) / speed if speed else None


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown time"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes else f"{rest} s"
