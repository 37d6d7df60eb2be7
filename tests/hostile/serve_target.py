"""`python serve_target.py MODEL_DIR`: the real server around a scripted engine that answers at
once. Its keys are `first` and `second`; it calls tools."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "server"))
from kit import ScriptBackend, settings

from rtp_core.server.limits import Limits
from rtp_core.server.listener import bind
from rtp_core.server.serve import run_server

logging.basicConfig(level=logging.INFO)
backend = ScriptBackend(Path(sys.argv[1]), ("Hello, world!",), 4)
config = settings(
    port=0, api_keys=("first", "second"), tool_call_parser="hermes", enable_auto_tool_choice=True
)
limits = Limits(header_timeout_s=2.0, body_timeout_s=2.0, refusal_grace_s=0.2)
with bind(config.server) as listener:
    asyncio.run(run_server(config, backend, listener, limits))
