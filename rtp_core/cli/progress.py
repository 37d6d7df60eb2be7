"""Progress on a terminal; silence in a pipe."""

from __future__ import annotations

import sys
from typing import TextIO

_WIDTH = 30


class ProgressBar:
    """Redraws one line on `stream` while it is a terminal."""

    def __init__(self, label: str, stream: TextIO = sys.stderr) -> None:
        self._label = label
        self._stream = stream
        self._shown = -1

    def __call__(self, done: int, total: int) -> None:
        """`done` of `total` units; draws at most once a percent."""
        percent = 100 if total == 0 else 100 * done // total
        if not self._stream.isatty() or percent == self._shown:
            return
        self._shown = percent
        filled = _WIDTH * percent // 100
        bar = "#" * filled + "." * (_WIDTH - filled)
        self._stream.write(f"\r{self._label} [{bar}] {percent:3d} %")
        if percent == 100:
            self._stream.write("\n")
        self._stream.flush()
