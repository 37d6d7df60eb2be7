"""`python waiting_server.py MODEL_DIR`: the real server around an engine that says nothing until
the file ``go`` is in that directory. Keeps idle connections open."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from kit import ScriptBackend, settings

from rtp_core.server.limits import Limits
from rtp_core.server.listener import allow_connections, bind
from rtp_core.server.serve import run_server


class Waiting(ScriptBackend):
    async def start(self):
        self.gate.clear()
        self.watching = asyncio.create_task(self.watch())

    async def watch(self):
        while not (self.folder / "go").exists():
            await asyncio.sleep(0.05)
        self.gate.set()


folder = Path(sys.argv[1])
backend = Waiting(folder, ("hello",))
backend.folder = folder
config = settings(port=0, max_queued_requests=4000)
allow_connections()
with bind(config.server) as listener:
    asyncio.run(run_server(config, backend, listener, Limits(refusal_grace_s=0.01)))
