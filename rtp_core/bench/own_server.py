"""`rtp serve` in a process of its own, for measurements that need a server."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rtp_core.bench.client import Target
from rtp_core.config.environment import process_environment, settings_in
from rtp_core.config.render import to_toml
from rtp_core.config.schema import EngineConfig
from rtp_core.errors import EngineDeadError

_READY = "rtp: serving "
_POLL_S = 0.01
_STOP_S = 20.0
_LOG_TAIL = 2000


@dataclass(frozen=True, slots=True)
class OwnServer:
    """A server that takes requests. `started_s` is on time.perf_counter's clock."""

    target: Target
    process: subprocess.Popen[bytes]
    started_s: float

    def alive(self) -> bool:
        """Whether its process still runs."""
        return self.process.poll() is None


@contextlib.contextmanager
def own_server(config: EngineConfig, threads: int | None = None) -> Iterator[OwnServer]:
    """Serve `config` on a free loopback port until the block ends.

    It runs in a session of its own, so that Ctrl-C ends the measurement and not the server.
    Raises EngineDeadError with the end of its log when it does not get ready.
    """
    local = replace(config, server=replace(config.server, host="127.0.0.1", port=0))
    with tempfile.TemporaryDirectory(prefix="rtp-bench-") as folder:
        file, log = Path(folder, "config.toml"), Path(folder, "log")
        file.touch(mode=0o600)  # it may hold keys
        file.write_text(to_toml(local))
        started_s = time.perf_counter()
        process = _start(file, log, threads)
        try:
            target = _wait(process, log, config.server.api_keys)
            yield OwnServer(target, process, started_s)
        finally:
            _stop(process)


def _start(file: Path, log: Path, threads: int | None) -> subprocess.Popen[bytes]:
    environment = dict(process_environment())
    for name, _ in settings_in(environment).values():
        del environment[name]  # the file holds them already, flags on top
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    command = [sys.executable, "-m", "rtp_core", "serve", "--config", str(file)]
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def _wait(process: subprocess.Popen[bytes], log: Path, keys: tuple[str, ...]) -> Target:
    while True:
        ended = process.poll() is not None
        text = log.read_text(errors="replace")
        ready = [line for line in text.splitlines(keepends=True) if line.startswith(_READY)]
        if ready and ready[0].endswith("\n"):
            return Target.of(ready[0].split()[-1], keys[0] if keys else None)
        if ended:
            raise EngineDeadError(f"rtp serve ended before it was ready:\n{text[-_LOG_TAIL:]}")
        time.sleep(_POLL_S)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask, then kill; the engine's process dies with its parent."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
