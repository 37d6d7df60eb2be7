"""What tests of both backends need: requests, readers, patience, a process with a script."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from rtp_core.api import Request, SamplingParams
from rtp_core.config.schema import EngineConfig, ServerConfig
from rtp_core.engine.process_backend import DEFAULT_PATIENCE, ProcessBackend

BUILDER = "scripted_engine:build"


def request(name="r", *prompt, **sampling):
    sampling.setdefault("max_tokens", 3)
    return Request(name, prompt or (1,), SamplingParams(**sampling))


async def read(backend, wanted):
    """All tokens by choice, and the last event of each choice."""
    tokens, last = {}, {}
    async with aclosing(backend.generate(wanted)) as events:
        async for event in events:
            tokens.setdefault(event.choice, []).extend(event.token_ids)
            last[event.choice] = event
    return tokens, last


async def until(condition, seconds=2.0):
    """Wait for a condition (a value or a coroutine's) and fail when it does not come."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.01)


async def idle(backend):
    """True when the engine holds no request."""
    stats = await backend.stats()
    return stats.num_running == 0 and stats.num_waiting == 0


def scripted_config(shutdown_timeout_s=5.0, **script):
    """A configuration whose script `scripted_engine.build` follows."""
    return EngineConfig(
        server=ServerConfig(shutdown_timeout_s=shutdown_timeout_s), plugins={"script": script}
    )


def find_scripts():
    """Let processes started from here import the scripted engine."""
    here = str(Path(__file__).parent)
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if here not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([here, *filter(None, paths)])


def new_process_backend(patience=DEFAULT_PATIENCE, builder=BUILDER, **script):
    """Not started yet."""
    find_scripts()
    return ProcessBackend(scripted_config(**script), builder=builder, patience=patience)


@asynccontextmanager
async def process_backend(patience=DEFAULT_PATIENCE, **script):
    """Started, and closed at the end."""
    backend = new_process_backend(patience, **script)
    try:
        await backend.start()
        yield backend
    finally:
        await backend.close()
