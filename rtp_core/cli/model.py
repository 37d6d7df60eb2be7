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
    get.add_argument(
        "name",
        help="demo (SmolLM2-135M-Instruct), an id of the Hugging Face hub (org/name, "
        "org/name@revision, org/name:file.gguf, org/name:Q4_K_M), or a local path",
    )
    get.add_argument("--revision", help="branch, tag or commit; unset is the main branch")
    get.add_argument(
        "--include",
        action="append",
        default=[],
        metavar="GLOB",
        help="files to get instead of a whole model; may be repeated",
    )
    arguments = parser.parse_args(argv)
    from rtp_core.loading.demo import resolve_model

    path = resolve_model(arguments.name, cache_dir(), arguments.revision, arguments.include)
    sys.stdout.write(f"{path}\n")
    return 0
