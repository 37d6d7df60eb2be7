"""Importing the package must stay cheap: every command line starts with it."""

from __future__ import annotations

import json
import subprocess
import sys

PROBE = """
import json, sys, time
began = time.process_time()
import rtp_core, rtp_core.api
seconds = time.process_time() - began
heavy = {"torch", "transformers", "fastapi", "numpy", "zmq"} & set(sys.modules)
print(json.dumps({"seconds": seconds, "heavy": sorted(heavy)}))
"""


def test_import_is_cheap_and_loads_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=True, timeout=60
    )
    report = json.loads(done.stdout)
    assert report["heavy"] == []
    assert report["seconds"] < 0.3
