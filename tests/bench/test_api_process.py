"""bench/api_process.py counts every token of its own engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench" / "api_process.py"


def test_no_token_is_lost(tmp_path):
    report = tmp_path / "report.json"
    command = [
        sys.executable, str(BENCH), "--streams", "8", "--rate", "400", "--seconds", "4",
        "--warm-up", "0.2", "--repeats", "1", "--json", str(report),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run(command, check=True, env=environment, timeout=120)
    (one,) = json.loads(report.read_text())["results"]["runs"]
    assert one["lost"] == 0
    assert one["tokens_per_chunk"] >= 1
    assert 0 < one["delay_p50_ms"] <= one["delay_p99_ms"] <= one["delay_max_ms"]
