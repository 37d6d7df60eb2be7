"""`python serve_script.py MODEL_DIR SHUTDOWN_TIMEOUT [loading]`: the real server around a
scripted engine whose steps take 50 ms; prints its own line when ready. With `loading` it never
gets ready and the script prints the address."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from kit import ScriptBackend, settings

from rtp_core.server.listener import bind, url
from rtp_core.server.serve import run_server

backend = ScriptBackend(Path(sys.argv[1]), ("a" * 20,))
backend.step_s = 0.05
config = settings(port=0, shutdown_timeout_s=float(sys.argv[2]))
with bind(config.server) as listener:
    if "loading" in sys.argv:
        backend.state = "loading"
        backend.start_gate = asyncio.Event()
        print(url(listener), flush=True)
    asyncio.run(run_server(config, backend, listener))
sys.exit(7)
