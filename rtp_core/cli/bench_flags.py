"""Flags of `rtp bench`: every number with its unit and bounds, checked as it is parsed."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from rtp_core.cli.help import EngineParser
from rtp_core.cli.options import engine_parser

_RIVALS = ("transformers", "llama-cpp-python")


def integer(low: int, unit: str) -> Callable[[str], int]:
    """A parser of whole numbers from `low`; `unit` is for the error."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not low <= value < 2**31:
            raise argparse.ArgumentTypeError(
                f"{text!r} is out of bounds; give a whole number of {unit}, at least {low}"
            )
        return value

    return parse


def positive(unit: str, *, endless: bool = False) -> Callable[[str], float]:
    """A parser of numbers above 0; with `endless` also ``inf``."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not value > 0 or (value == float("inf") and not endless):
            raise argparse.ArgumentTypeError(
                f"{text!r} is out of bounds; give {unit} above 0{' or inf' if endless else ''}"
            )
        return value

    return parse


def share(text: str) -> float:
    """A number from 0, below 1."""
    try:
        value = float(text)
    except ValueError:
        value = 1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is out of bounds; give a number from 0 below 1")
    return value


def parser_of(kind: str, summary: str) -> EngineParser:
    """The engine's flags, and those all measurements share."""
    parser = engine_parser(f"bench {kind}", summary)
    group = parser.add_argument_group("measurement")
    group.add_argument("--json", type=Path, metavar="FILE", help="file for the results as JSON")
    group.add_argument(
        "--threads",
        type=integer(1, "threads"),
        help="threads of the engine's operations; unset is one a usable core",
    )
    return parser


def add_lengths(parser: argparse.ArgumentParser, input_len: int, output_len: int) -> None:
    """Tokens in and out of one request."""
    tokens = integer(1, "tokens")
    parser.add_argument(
        "--input-len", type=tokens, default=input_len, metavar="TOKENS",
        help=f"prompt tokens a request, at least 1. Default: {input_len}.",
    )  # fmt: skip
    parser.add_argument(
        "--output-len", type=tokens, default=output_len, metavar="TOKENS",
        help=f"tokens generated a request, at least 1. Default: {output_len}.",
    )  # fmt: skip


def add_repeats(parser: argparse.ArgumentParser) -> None:
    """How often, and beside whom."""
    parser.add_argument(
        "--repeats", type=integer(1, "runs"), default=3, metavar="RUNS",
        help="runs that are measured, at least 1. Default: 3.",
    )  # fmt: skip
    parser.add_argument(
        "--warmup", type=integer(0, "runs"), default=1, metavar="RUNS",
        help="runs before them that are not, at least 0. Default: 1.",
    )  # fmt: skip
    parser.add_argument(
        "--against", action="append", default=[], choices=_RIVALS,
        help="run another engine in turn with this one; may be repeated",
    )  # fmt: skip


def add_prompts(parser: argparse.ArgumentParser, count: int) -> None:
    """How many requests, and whose."""
    parser.add_argument(
        "--num-prompts", type=integer(1, "requests"), default=count, metavar="REQUESTS",
        help=f"requests in all, at least 1. Default: {count}.",
    )  # fmt: skip
    parser.add_argument(
        "--dataset", "--dataset-path", type=Path, metavar="FILE.jsonl",
        help="prompts instead of random ones: one JSON object a line, with prompt (text or token "
        "ids) or messages, and output_len in tokens if it is not --output-len",
    )  # fmt: skip


def add_client(parser: argparse.ArgumentParser) -> None:
    """Whom to ask, how patiently, and what counts as good."""
    parser.add_argument(
        "--url", "--base-url", metavar="URL",
        help="a server that runs; MODEL is then the name to ask for. Without it MODEL is served "
        "on a free port",
    )  # fmt: skip
    parser.add_argument(
        "--report", type=Path, metavar="FILE.html",
        help="file for the results as one page: distributions, rates over time, each request",
    )  # fmt: skip
    parser.add_argument(
        "--max-concurrency", type=integer(1, "requests"), metavar="REQUESTS",
        help="requests under way at most, at least 1; others wait unsent. Default: no bound.",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=positive("seconds"), default=600.0, metavar="SECONDS",
        help="longest time of one request, above 0 s. Default: 600.",
    )  # fmt: skip
    parser.add_argument(
        "--warmup", "--num-warmups", type=integer(0, "requests"), default=1, metavar="REQUESTS",
        help="requests before the measurement, at least 0. Default: 1.",
    )  # fmt: skip
    parser.add_argument(
        "--goodput", nargs="+", default=[], metavar="METRIC:MS",
        help="goals of a good request in milliseconds, like ttft:200 tpot:50 e2e:3000 "
        "(e2el is e2e); "
        "without goals every request that ends well is good",
    )  # fmt: skip
