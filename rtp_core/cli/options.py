"""Arguments shared by commands that read a configuration."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rtp_core.config.flags import add_engine_flags, config_from_args
from rtp_core.config.schema import EngineConfig


def engine_parser(name: str, summary: str) -> argparse.ArgumentParser:
    """A parser with the engine's flags; commands add their own."""
    parser = argparse.ArgumentParser(prog=f"rtp {name}", description=summary)
    add_engine_flags(parser)
    return parser


def parse_config(
    parser: argparse.ArgumentParser, argv: Sequence[str]
) -> tuple[argparse.Namespace, EngineConfig]:
    """Parsed arguments and the configuration they, the environment and the file make."""
    arguments = parser.parse_args(argv)
    return arguments, config_from_args(arguments)
