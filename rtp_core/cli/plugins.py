"""`rtp plugins`: what is installed and what each part provides. Imports no plugin."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from rtp_core.plugins.discover import discover
from rtp_core.plugins.listing import list_plugins


def command(argv: Sequence[str]) -> int:
    """Text for people, `--json` for programs."""
    parser = argparse.ArgumentParser(prog="rtp plugins", description="List installed plugins.")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    arguments = parser.parse_args(argv)
    rows = list_plugins(discover(), None)
    if arguments.json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return 0
    for row in rows:
        note = f"  BROKEN: {row['broken']}" if row.get("broken") else ""
        sys.stdout.write(
            f"{row['name']:<20} {row['version']:<8} api {row['api']:<5} "
            f"{', '.join(row['provides'])}{note}\n"
        )
    return 0
