"""Serve HTTP on a bound socket until a signal, then drain."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from types import FrameType

import uvicorn

from rtp_core.config.schema import EngineConfig
from rtp_core.engine.contract import AsyncBackend
from rtp_core.observe.timeline import log_line, table
from rtp_core.server.app import app_of
from rtp_core.server.connection import connection_class
from rtp_core.server.limits import Limits
from rtp_core.server.listener import BACKLOG, url
from rtp_core.server.service import Service
from rtp_core.server.start import Progress

log = logging.getLogger("rtp.server")

LAST_WORDS_S = 5
"""How long answers may take to leave after the last request was ended."""


_PROGRESS_S = 0.1


async def run_server(
    config: EngineConfig,
    backend: AsyncBackend,
    listener: socket.socket,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> None:
    """Serve on a bound socket, from the start of the backend to its end."""
    service = Service(config, backend, limits or Limits())
    server = Server(service, log_level="info" if config.server.verbose else "warning")
    serving = asyncio.create_task(server.serve([listener]))
    starting = asyncio.create_task(start(service, listener))
    shown = asyncio.create_task(show(backend, progress or _silent))
    try:
        await asyncio.wait({serving, starting}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            shown.cancel()
            starting.result()
        await asyncio.wait({serving})
        serving.result()
    finally:
        starting.cancel()
        shown.cancel()
        server.should_exit = True
        await asyncio.gather(serving, starting, shown, return_exceptions=True)
        await backend.close()


async def start(service: Service, listener: socket.socket) -> None:
    """Bring the backend up, then say where it can be reached."""
    await service.backend.start()
    await service.open()
    log.info(log_line(service.info.start))
    if service.config.server.verbose:
        sys.stderr.write(table(service.info.start))
    at = url(listener, secure=service.config.server.ssl_certfile is not None)
    sys.stdout.write(f"rtp: serving {service.names[0]} at {at}\n")
    sys.stdout.flush()


async def show(backend: AsyncBackend, progress: Progress) -> None:
    """Pass the backend's load progress on until cancelled."""
    while True:
        await asyncio.sleep(_PROGRESS_S)
        if backend.progress is not None:
            progress(*backend.progress)


def _silent(done: int, total: int) -> None:
    """Nobody watches."""


class Server(uvicorn.Server):
    """uvicorn's server; the first signal drains, the second ends everything at once."""

    def __init__(self, service: Service, log_level: str) -> None:
        config = service.config.server
        super().__init__(
            uvicorn.Config(
                app_of(service),
                http=connection_class(service.limits),
                ws="none",
                lifespan="on",
                backlog=BACKLOG,
                h11_max_incomplete_event_size=service.limits.header_bytes,
                timeout_graceful_shutdown=LAST_WORDS_S,
                access_log=False,
                ssl_certfile=config.ssl_certfile,
                ssl_keyfile=config.ssl_keyfile,
                server_header=False,
                log_config=None,
                log_level=log_level,
            )
        )
        self._service = service
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drain: asyncio.Task[None] | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn."""
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Runs between two byte codes of the main thread: only wake the loop."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._on_signal)

    def _on_signal(self) -> None:
        if self._drain is None:
            log.info("draining")
            self._drain = asyncio.create_task(self._drain_and_exit())
        else:
            self._service.traffic.abort_all()
            self.should_exit = True

    async def _drain_and_exit(self) -> None:
        await self._service.traffic.drain(self._service.config.server.shutdown_timeout_s)
        self.should_exit = True
