"""`rtp serve`: bind, start the engine, then bring up HTTP while the engine loads."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Callable

from rtp_core.config.schema import EngineConfig
from rtp_core.engine.process_backend import ProcessBackend
from rtp_core.server.answer_formats import check_names
from rtp_core.server.listener import allow_connections, bind, check_tls, warn_if_open
from rtp_core.server.root_path import check_root_path
from rtp_core.server.tracing import exporter_to

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all) while weights load."""


def serve(config: EngineConfig, progress: Progress | None = None) -> int:
    """Serve until SIGTERM or SIGINT; exit status 0.

    The port is bound before the model loads; /health says 503 meanwhile. Raises the RtpError
    that kept the port from being bound or the engine from starting.
    """
    check_tls(config.server)
    check_root_path(config.server)
    if config.server.otlp_traces_endpoint is not None:
        exporter_to(config.server.otlp_traces_endpoint).shutdown()
    check_names(config)
    listener = bind(config.server)
    warn_if_open(config.server)
    allow_connections()
    with listener:
        run(config, ProcessBackend(config), listener, progress)
    return 0


def run(
    config: EngineConfig,
    backend: ProcessBackend,
    listener: socket.socket,
    progress: Progress | None = None,
) -> None:
    """Start the backend and serve on a bound socket, in a process that does nothing else."""
    backend.begin()
    # Importing the web framework takes a core half a second, in which the engine's process
    # imports torch on another.
    from rtp_core.server.serve import run_server

    # What was imported stays, but every full collection would walk it while all streams wait.
    gc.freeze()
    asyncio.run(run_server(config, backend, listener, progress=progress))
