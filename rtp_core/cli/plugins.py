"""`rtp plugins`: what is installed, and the skeleton of a new one. Imports no plugin."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rtp_core.api import Role
from rtp_core.plugins.discover import discover
from rtp_core.plugins.listing import list_plugins
from rtp_core.plugins.skeleton.write import ROLES, write_skeleton


def command(argv: Sequence[str]) -> int:
    """Text for people, `--json` for programs; ``new`` writes a skeleton."""
    arguments = _parser().parse_args(argv)
    if arguments.action == "new":
        return _new(arguments)
    return _list(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rtp plugins", description="List installed plugins.")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    actions = parser.add_subparsers(dest="action", metavar="new")
    new = actions.add_parser("new", help="write the skeleton of a plugin")
    new.add_argument("name", metavar="NAME", help="of the plugin and its offer")
    new.add_argument(
        "--role", required=True, choices=[role.value for role in ROLES], help="what it offers"
    )
    new.add_argument(
        "--directory", type=Path, default=Path(), metavar="DIR", help="where to put it (here)"
    )
    return parser


def _new(arguments: argparse.Namespace) -> int:
    root = write_skeleton(arguments.name, Role(arguments.role), arguments.directory)
    sys.stdout.write(
        f"wrote {root}\nnext: pip install -e {root} && pytest --rtp-plugin {arguments.name}\n"
    )
    return 0


def _list(arguments: argparse.Namespace) -> int:
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
