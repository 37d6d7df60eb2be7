"""`python serve_script.py MODEL_DIR SHUTDOWN_TIMEOUT`: the real server around a scripted engine
whose steps take 50 ms; prints its own line when ready."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from kit import ScriptBackend, settings

from rtp_core.server.serve import bind, run_server

backend = ScriptBackend(Path(sys.argv[1]), ("a" * 20,))
backend.step_s = 0.05
config = settings(port=0, shutdown_timeout_s=float(sys.argv[2]))
with bind(config.server) as listener:
    asyncio.run(run_server(config, backend, listener))
sys.exit(7)
