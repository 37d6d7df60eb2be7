"""`python serve_target.py MODEL_DIR`: the real server around a scripted engine without waits;
its keys are `first` and `second`, its model thinks and calls tools."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "server"))
from kit import ScriptBackend, settings

from rtp_core.observe.log import open_log
from rtp_core.server.limits import Limits
from rtp_core.server.listener import bind
from rtp_core.server.serve import run_server
