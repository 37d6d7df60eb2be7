"""The engine process: ``python -m rtp_core.engine.process_main ENDPOINT MODULE:FUNCTION``.

Started by `process_backend` only. Its parent writes a token as the first line of standard
input and keeps that pipe open: end of file means that the parent is gone. Signals that stop a
terminal's or a service's process group are ignored, because the parent drains first and then
says so over the socket.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from rtp_core.config.schema import EngineConfig
from rtp_core.engine.build import build, started_info
from rtp_core.engine.channel import ChildChannel
from rtp_core.engine.loop import EngineLoop
from rtp_core.engine.parent import die_with_parent, read_token
from rtp_core.engine.wire import Configure, Hello, LoadFailed, Loading, Ready, describe
from rtp_core.errors import EngineDeadError, RtpError
from rtp_core.observe.log import use_format

log = logging.getLogger("rtp.engine")

EXIT_OK, EXIT_LOAD_FAILED, EXIT_LOOP_FAILED = 0, 3, 4
_PROGRESS_INTERVAL_S = 0.1


def main(arguments: Sequence[str]) -> int:
    """Load, serve, and return the exit status."""
    endpoint, builder = arguments
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    token = read_token()
    die_with_parent()
    channel = ChildChannel(endpoint)
    try:
        channel.send(Hello(token))
        return _serve(channel, _configuration(channel), builder)
    finally:
        channel.close()


def _serve(channel: ChildChannel, config: EngineConfig, builder: str) -> int:
    use_format(config.server.log_format)
    if config.server.verbose:
        logging.getLogger("rtp").setLevel(logging.DEBUG)
    try:
        engine = build(builder, config, _progress(channel))
        channel.send(Ready(started_info(engine)))
    except RtpError as error:
        channel.send(LoadFailed(describe(error)))
        return EXIT_LOAD_FAILED
    except Exception as error:
        log.exception("load_failed")
        text = f"the engine could not be built: {type(error).__name__}: {error}"
        channel.send(LoadFailed(describe(EngineDeadError(text))))
        return EXIT_LOAD_FAILED
    done = EngineLoop(engine, channel, channel.send).run()
    return EXIT_OK if done else EXIT_LOOP_FAILED


def _configuration(channel: ChildChannel) -> EngineConfig:
    match channel.take(None):
        case [Configure(config=config)]:
            return config
        case messages:
            raise RuntimeError(f"expected a configuration, got {messages!r}")


def _progress(channel: ChildChannel) -> Callable[[int, int], None]:
    """Forwards the load's progress, not more often than a display needs."""
    due_s = 0.0

    def report(done: int, total: int) -> None:
        nonlocal due_s
        now = time.monotonic()
        if now >= due_s or done == total:
            due_s = now + _PROGRESS_INTERVAL_S
            channel.send(Loading(done, total))

    return report


def _leave(status: int) -> NoReturn:
    """Destructors would call a device that may be lost, and could wait for it for ever."""
    if status == EXIT_LOOP_FAILED:
        logging.shutdown()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    _leave(main(sys.argv[1:]))
