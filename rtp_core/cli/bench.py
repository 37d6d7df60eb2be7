"""`rtp bench latency | throughput`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rtp_core.cli.options import engine_parser, parse_config
from rtp_core.errors import ConfigError

_KINDS = ("latency", "throughput")


def command(argv: Sequence[str]) -> int:
    """Print a summary; `--json FILE` writes the schema-1 object."""
    parser = engine_parser("bench", "Measure the engine in this process.")
    parser.usage = "rtp bench {latency,throughput} [MODEL] [options]"
    parser.add_argument("--input-len", type=int, default=128, help="prompt tokens a request")
    parser.add_argument("--output-len", type=int, default=64, help="tokens generated a request")
    parser.add_argument("--batch-size", type=int, default=1, help="requests at once (latency)")
    parser.add_argument("--num-prompts", type=int, default=32, help="requests (throughput)")
    parser.add_argument("--repeats", type=int, default=3, help="measured repeats")
    parser.add_argument("--json", type=Path, help="file for the results")
    kind = argv[0] if argv else ""
    if kind not in _KINDS:
        parser.error(f"choose what to measure: {' or '.join(_KINDS)}")
    arguments, config = parse_config(parser, argv[1:])
    from rtp_core.bench.measure import Load, measure_latency, measure_throughput

    for name in ("input_len", "output_len", "batch_size", "num_prompts", "repeats"):
        if getattr(arguments, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')}", "must be at least 1")
    load = Load(
        arguments.input_len,
        arguments.output_len,
        arguments.batch_size if kind == "latency" else arguments.num_prompts,
        arguments.repeats,
    )
    measure = measure_latency if kind == "latency" else measure_throughput
    report = measure(config, load)
    sys.stdout.write(json.dumps(report["results"], indent=2) + "\n")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0
