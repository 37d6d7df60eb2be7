"""`rtp model get NAME`: obtain a model into the cache."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rtp_core.config.environment import cache_dir


def command(argv: Sequence[str]) -> int:
    """Prints the path of the model."""
    parser = argparse.ArgumentParser(prog="rtp model")
    actions = parser.add_subparsers(dest="action", required=True)
    get = actions.add_parser("get", help="obtain a model; prints its path")
    get.add_argument("name", help="demo (SmolLM2-135M-Instruct) or a local path")
    arguments = parser.parse_args(argv)
    from rtp_core.loading.demo import resolve_model

    sys.stdout.write(f"{resolve_model(arguments.name, cache_dir())}\n")
    return 0
