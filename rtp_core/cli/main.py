"""The `rtp` command: sub-commands are imported only when called."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from importlib import import_module

from rtp_core import __version__
from rtp_core.errors import RtpError

COMMANDS = {
    "serve": "HTTP server with the chat page",
    "run": "one answer on standard output, or a chat",
    "bench": "measure latency, throughput, serving, loading",
    "plugins": "installed plugins and what each provides",
    "explain": "effective features, why, and what they cost",
    "doctor": "check the environment, with remedies",
    "model": "obtain a model",
    "tune": "find the fastest kernels for a model on this GPU",
    "convert": "write a model ready to serve: fused, split, quantized",
    "train-draft": "train heads that draft for a model",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed, 2 wrong usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    for chatty in ("httpx", "httpx2"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        return _dispatch(arguments)
    except RtpError as error:
        sys.stderr.write(f"rtp: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 0


def _dispatch(arguments: list[str]) -> int:
    if arguments and arguments[0] in COMMANDS:
        module = import_module(f"rtp_core.cli.{arguments[0].replace('-', '_')}")
        return module.command(arguments[1:])
    if arguments and not arguments[0].startswith("-"):
        plugin_command = import_module("rtp_core.cli.plugin_commands")
        return plugin_command.command(arguments[0], arguments[1:], tuple(COMMANDS))
    parser = argparse.ArgumentParser(prog="rtp", description="A plugin engine for LLM inference.")
    parser.add_argument("--version", action="version", version=f"rtp {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        commands.add_parser(name, help=summary)
    parser.parse_args(arguments)
    return 2
