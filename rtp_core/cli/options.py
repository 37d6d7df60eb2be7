"""Arguments shared by commands that read a configuration."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rtp_core.cli.help import EngineParser
from rtp_core.config.flags import add_engine_flags, config_from_args
from rtp_core.config.schema import EngineConfig


def engine_parser(name: str, summary: str, *, own_first: bool = True) -> EngineParser:
    """A parser with the engine's flags; commands add their own.

    `own_first`: help begins with the command's and only names those of the engine.
    """
    parser = EngineParser(f"rtp {name}", summary, own_first=own_first)
    add_engine_flags(parser)
    return parser


def parse_config(
    parser: EngineParser, argv: Sequence[str]
) -> tuple[argparse.Namespace, EngineConfig]:
    """Parsed arguments and the configuration they, the environment and the file make."""
    arguments = parser.parse(argv)
    return arguments, config_from_args(arguments)
