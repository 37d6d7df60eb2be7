"""`rtp explain`: effective features, before any weight is read."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from rtp_core.cli.options import engine_parser, parse_config


def command(argv: Sequence[str]) -> int:
    """Text for people, `--json` for programs."""
    parser = engine_parser(
        "explain", "Print which part fills each role, why, and its cost.", own_first=False
    )
    parser.add_argument("--json", action="store_true", help="machine-readable")
    arguments, config = parse_config(parser, argv)
    from rtp_core.engine.explain import explain_model

    report = explain_model(config)
    if arguments.json:
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    else:
        sys.stdout.write(_text(report))
    return 0


def _text(report: dict) -> str:
    model, memory = report["model"], report["memory"]
    lines = [
        f"model    {model['path']}  {model['architecture']}  {model['dtype']}  "
        f"context {model['max_model_len']}",
        f"weights  {memory['weights_bytes'] / 2**20:.0f} MiB"
        + ("" if model["weights_here"] else ", not downloaded yet"),
        f"kv cache {memory['kv_bytes'] / 2**20:.0f} MiB = {memory['kv_tokens']} tokens "
        f"({memory['kv_reason']})",
        "",
    ]
    width = max(len(feature["role"]) for feature in report["features"])
    for feature in report["features"]:
        state = "on " if feature["on"] else "off"
        offer = feature["offer"] or "-"
        owner = f"{feature['plugin']} {feature['version']}" if feature["plugin"] else "-"
        role, reason = feature["role"], feature["reason"]
        lines.append(f"{state}  {role:<{width}} {offer:<24} {owner:<24} {reason}")
    return "\n".join(lines) + "\n"
