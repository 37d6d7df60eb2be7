"""The engine process's tie to its parent: a token to begin with, and an end together."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

EXIT_PARENT_GONE = 5
_PR_SET_PDEATHSIG = 1


def read_token() -> str:
    """The first line of standard input, read unbuffered: the watcher reads on from there."""
    line = bytearray()
    while not line.endswith(b"\n"):
        read = os.read(0, 1)
        if not read:
            sys.exit(EXIT_PARENT_GONE)
        line += read
    return line.decode("ascii").strip()


def die_with_parent() -> None:
    """By the kernel where it can (Linux), and by end of file on standard input anywhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_watch_parent, name="rtp-parent-watch", daemon=True).start()


def _watch_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(EXIT_PARENT_GONE)
