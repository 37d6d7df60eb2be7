"""Processes that compile kernels into Triton's cache on disk, one after the other as they come.

A worker imports torch and Triton while the dry run that finds its work goes on, and whoever is
free takes the next kernel. It reads one JSON line a kernel and answers each with a line.
"""

# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from queue import SimpleQueue
from types import TracebackType
from typing import NamedTuple, Self

from triton.runtime import driver


class Recorded(NamedTuple):
    """A kernel by module and name, the digest of its source, and how it is specialised."""

    module: str
    name: str
    source: str
    specialization: str


class Workers:
    """`number` processes, from the first kernel on. Leaving by an exception kills them.

    A worker that fails is no error: its kernel is compiled when it is launched.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._known: set[Recorded] = set()
        self._left: SimpleQueue[Recorded | None] = SimpleQueue()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._threads = ThreadPoolExecutor(number, "rtp-compile")
        self._complete = True

    @property
    def count(self) -> int:
        """Different kernels so far."""
        return len(self._known)

    @property
    def complete(self) -> bool:
        """Whether all were compiled; known after the block."""
        return self._complete

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes:
            self._left.put(None)
            if error is not None:
                process.kill()
        self._threads.shutdown()

    def put(self, kernel: Recorded) -> None:
        """Compile it, if it is new."""
        if kernel in self._known:
            return
        self._known.add(kernel)
        self._left.put(kernel)
        while len(self._processes) < self._number:
            self._processes.append(start())
            self._threads.submit(self._serve, self._processes[-1])

    def _serve(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None  # noqa: S101 - both were asked for
        assert process.stdout is not None  # noqa: S101
        with suppress(BrokenPipeError), process.stdin:
            while (kernel := self._left.get()) is not None:
                process.stdin.write(json.dumps(kernel).encode() + b"\n")
                process.stdin.flush()
                if not process.stdout.readline():
                    break
        if process.wait() != 0:
            self._complete = False


def start() -> subprocess.Popen[bytes]:
    """A worker; what it and its compilers say is not wanted."""
    return subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def work() -> None:
    """A worker's life: kernels from standard input into Triton's cache."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # nothing else may answer
        for line in sys.stdin:
            module, name, source, specialization = json.loads(line)
            function = getattr(import_module(module), name)
            # Triton 3.6 digests a function differently by what it digested before, and whoever
            # asked looks for its own digest.
            function.hash = source
            kernel = function.preload(specialization)
            # What launches it may be C to be compiled too; it needs no context on the device.
            driver.active.launcher_cls(kernel.src, kernel.metadata)
            answers.write("compiled\n")
            answers.flush()


if __name__ == "__main__":
    work()
