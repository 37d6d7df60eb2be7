"""`rtp bench latency --against transformers` at the points of docs/performance.md.

    python bench/vs_transformers.py [MODEL] [--threads 1] [--repeats 3] [other flags of the command]

The command measures; this only names the points. JSON goes to bench/results/.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rtp_core.cli.main import main as rtp

POINTS = ((1, 64, 32), (8, 64, 24), (1, 1024, 24), (16, 256, 12))
"""(batch, prompt tokens, output tokens)."""
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    worst = 0
    for batch, input_len, output_len in POINTS:
        point = {"batch-size": batch, "input-len": input_len, "output-len": output_len}
        flags = [f"--{name}={value}" for name, value in point.items()]
        file = RESULTS / f"latency-{batch}x{input_len}.json"
        rival = ["--against", "transformers", "--json", str(file)]
        worst = max(worst, rtp(["bench", "latency", *sys.argv[1:], *flags, *rival]))
    return worst


if __name__ == "__main__":
    sys.exit(main())
