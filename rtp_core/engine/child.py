"""The parent's hold on one engine process, from its start until it is reaped."""

from __future__ import annotations

import logging
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

log = logging.getLogger("rtp.engine")

COMMAND = ("-m", "rtp_core.engine.process_main")
_STDERR = 2
_KILL_PATIENCE_S = 10.0
"""A killed process may linger in a driver call; it is left to the system after that."""


class Child:
    """A running engine process. `on_exit` is called once, in a thread of its own."""

    def __init__(self, endpoint: str, builder: str, on_exit: Callable[[], None]) -> None:
        self.token = secrets.token_hex(32)
        command = [sys.executable, *COMMAND, endpoint, builder]
        # Its own session: a signal to the terminal's group must not reach it before we drain.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=_STDERR, bufsize=0, start_new_session=True
        )
        self._gone = threading.Event()
        self._tell(self.token + "\n")
        watcher = threading.Thread(target=self._await, args=(on_exit,), daemon=True)
        watcher.name = f"rtp-reaper-{self.pid}"
        watcher.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def gone(self) -> bool:
        """True once it has been reaped."""
        return self._gone.is_set()

    def describe_exit(self) -> str:
        """How it ended, in words."""
        status = self._process.returncode
        if status is not None and status < 0:
            with suppress(ValueError):
                return f"was killed by {signal.Signals(-status).name}"
        return f"exited with status {status}"

    def end(self, patience_s: float = 0.0) -> None:
        """Wait for its exit, then kill it. Returns when it is reaped."""
        if not self._gone.wait(patience_s):
            self._process.kill()
            if not self._gone.wait(_KILL_PATIENCE_S):
                log.error("engine_process_stuck pid=%d", self.pid)
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _tell(self, line: str) -> None:
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.write(line.encode("ascii"))

    def _await(self, on_exit: Callable[[], None]) -> None:
        self._process.wait()
        self._gone.set()
        on_exit()
