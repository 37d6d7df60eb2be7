"""Whoever starts the server can follow the weights."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from rtp_core.server import serve


async def test_load_progress_is_passed_on_until_the_model_is_there(monkeypatch):
    monkeypatch.setattr(serve, "_PROGRESS_S", 0.001)
    backend = SimpleNamespace(progress=None)
    seen: list[tuple[int, int]] = []
    task = asyncio.create_task(serve.show(backend, lambda *step: seen.append(step)))
    await asyncio.sleep(0.02)
    assert seen == []
    for done in (3, 10):
        backend.progress = (done, 10)
        await asyncio.sleep(0.05)
    task.cancel()
    assert seen[0] == (3, 10)
    assert seen[-1] == (10, 10)
