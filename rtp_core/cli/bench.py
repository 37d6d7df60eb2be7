"""`rtp bench latency | throughput | serve | load | trace`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rtp_core.cli.bench_flags import (
    add_client,
    add_lengths,
    add_prompts,
    add_repeats,
    integer,
    parser_of,
    positive,
)
from rtp_core.cli.options import parse_config
from rtp_core.errors import ConfigError

if TYPE_CHECKING:
    from rtp_core.bench.report import Report
    from rtp_core.bench.session import Client, Where
    from rtp_core.config.schema import EngineConfig

INTERRUPTED = 130


def command(argv: Sequence[str]) -> int:
    """A table on standard output; ``--json FILE`` writes the schema-1 object.

    Exit status 1 when a request failed, 130 after Ctrl-C, which keeps what was measured.
    """
    if not argv or argv[0] not in _KINDS:
        _choose(argv)
    return _KINDS[argv[0]](argv[1:])


def _choose(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="rtp bench", description="Measure, and say what of.")
    kinds = parser.add_subparsers(dest="kind", metavar="|".join(_KINDS), required=True)
    for name, run in _KINDS.items():
        kinds.add_parser(name, help=run.__doc__)
    parser.parse_args(argv)


def _latency(argv: Sequence[str]) -> int:
    """time to the first token and of a decode step, of one batch"""
    parser = parser_of("latency", "Time to the first token and of a decode step, of one batch.")
    add_lengths(parser, 128, 64)
    parser.add_argument(
        "--batch-size", type=integer(1, "requests"), default=1, metavar="REQUESTS",
        help="requests side by side, at least 1. Default: 1.",
    )  # fmt: skip
    add_repeats(parser)
    arguments, config = parse_config(parser, argv)
    from rtp_core.bench.in_process import Repeats, latency
    from rtp_core.bench.offline import Load

    load = Load(arguments.input_len, arguments.output_len, arguments.batch_size)
    how = Repeats(arguments.repeats, arguments.warmup, arguments.threads, tuple(arguments.against))
    return _tell(latency(config, load, how, _note), arguments.json)


def _throughput(argv: Sequence[str]) -> int:
    """requests and tokens a second, all requests at once"""
    parser = parser_of("throughput", "Requests and tokens a second, all requests at once.")
    add_lengths(parser, 128, 64)
    add_prompts(parser, 32)
    add_repeats(parser)
    arguments, config = parse_config(parser, argv)
    if arguments.dataset is not None and arguments.against:
        raise ConfigError(
            "--against",
            "other engines run prompts of one length only",
            remedy="leave out --dataset",
        )
    from rtp_core.bench.in_process import Repeats, throughput
    from rtp_core.bench.offline import Load
    from rtp_core.bench.prompts import read_dataset

    count, output_len = arguments.num_prompts, arguments.output_len
    dataset = None
    if arguments.dataset is not None:
        dataset = read_dataset(arguments.dataset, count, output_len)
    load = Load(arguments.input_len, output_len, count)
    how = Repeats(arguments.repeats, arguments.warmup, arguments.threads, tuple(arguments.against))
    return _tell(throughput(config, load, how, dataset, _note), arguments.json)


def _serve(argv: Sequence[str]) -> int:
    """latencies, rates and goodput over HTTP, at an arrival rate"""
    parser = parser_of("serve", "Latencies, rates and goodput over HTTP, at an arrival rate.")
    add_lengths(parser, 128, 64)
    add_prompts(parser, 100)
    add_client(parser)
    parser.add_argument(
        "--request-rate", type=positive("requests a second", endless=True), default=float("inf"),
        metavar="PER_SECOND",
        help="mean arrivals a second (Poisson), above 0, or inf: all at once. Default: inf.",
    )  # fmt: skip
    parser.add_argument(
        "--endpoint", choices=("completions", "chat"), default="completions",
        help="completions takes exact token counts, chat text. Default: completions.",
    )  # fmt: skip
    parser.add_argument(
        "--workload-seed", type=integer(0, "its own"), default=0, metavar="SEED",
        help="seed of arrival times and random prompts, at least 0. Default: 0.",
    )  # fmt: skip
    arguments, config = parse_config(parser, argv)
    from rtp_core.bench.prompts import read_dataset
    from rtp_core.bench.serving import OpenLoop, serve

    asks = None
    if arguments.dataset is not None:
        asks = read_dataset(arguments.dataset, arguments.num_prompts, arguments.output_len)
    load = OpenLoop(
        arguments.endpoint,
        arguments.request_rate,
        arguments.num_prompts,
        arguments.input_len,
        arguments.output_len,
        arguments.workload_seed,
        asks,
    )
    where, client = _parties(arguments, config)
    return _tell(serve(where, client, load, _note), arguments.json)


def _load(argv: Sequence[str]) -> int:
    """how fast the weights load, against plain reads, and a start to its first token"""
    parser = parser_of("load", "Weights against plain reads, and a start to its first token.")
    parser.add_argument(
        "--repeats", type=integer(1, "starts"), default=3, metavar="STARTS",
        help="starts that are measured, at least 1. Default: 3.",
    )  # fmt: skip
    parser.add_argument(
        "--cold", action="store_true", help="put the files out of the page cache before each"
    )
    arguments, config = parse_config(parser, argv)
    from rtp_core.bench.loading import load

    report = load(config, arguments.repeats, cold=arguments.cold, threads=arguments.threads)
    return _tell(report, arguments.json)


def _trace(argv: Sequence[str]) -> int:
    """an arrival trace in Mooncake's form, replayed over HTTP"""
    parser = parser_of("trace", "Replay an arrival trace in Mooncake's form over HTTP.")
    parser.usage = "rtp bench trace FILE [MODEL] [options]"
    add_client(parser)
    parser.add_argument(
        "--limit", type=integer(1, "requests"), metavar="REQUESTS",
        help="only the first so many requests, at least 1. Default: all.",
    )  # fmt: skip
    parser.add_argument(
        "--time-scale", type=positive("a factor"), default=1.0, metavar="FACTOR",
        help="factor of the time between arrivals; 0.5 is twice the rate. Default: 1.",
    )  # fmt: skip
    parser.add_argument(
        "--length-scale", type=positive("a factor"), default=1.0, metavar="FACTOR",
        help="factor of prompt, answer and block lengths, for small models. Default: 1.",
    )  # fmt: skip
    if not argv or argv[0].startswith("-"):
        if {"-h", "--help"} & set(argv):
            parser.parse_args(argv)
        parser.error("FILE is required, before MODEL and flags")
    arguments, config = parse_config(parser, argv[1:])
    from rtp_core.bench.replay import Replay, trace
    from rtp_core.bench.trace import Scale, read_trace

    arrivals = read_trace(Path(argv[0]), arguments.limit)
    scale = Scale(arguments.time_scale, arguments.length_scale)
    where, client = _parties(arguments, config)
    return _tell(
        trace(where, client, Replay(Path(argv[0]).name, arrivals, scale), _note), arguments.json
    )


def _parties(arguments: argparse.Namespace, config: EngineConfig) -> tuple[Where, Client]:
    from rtp_core.bench.service_level import parse_goals
    from rtp_core.bench.session import Client, Where

    if arguments.url is not None and arguments.model is not None:
        raise ConfigError(
            "--url",
            "names a server that has a model already",
            remedy=f"leave out --url, or MODEL, {arguments.model}",
        )
    where = Where(arguments.url, config, arguments.threads)
    goals = parse_goals(arguments.goodput)
    return where, Client(arguments.timeout, arguments.max_concurrency, arguments.warmup, goals)


def _tell(report: Report, target: Path | None) -> int:
    from rtp_core.bench.table import render

    found = report.as_json()
    sys.stdout.write(render(found))
    if target is not None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n")
        except OSError as error:
            raise ConfigError("--json", f"cannot write {target}: {error.strerror}") from error
    if report.interrupted:
        return INTERRUPTED
    return 1 if found["results"].get("errors") else 0


def _note(line: str) -> None:
    sys.stderr.write(f"rtp bench: {line}\n")


_KINDS: dict[str, Callable[[Sequence[str]], int]] = {
    "latency": _latency,
    "throughput": _throughput,
    "serve": _serve,
    "load": _load,
    "trace": _trace,
}
