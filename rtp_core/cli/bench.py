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
    return _tell(latency(config, load, how, _note), arguments)


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
    return _tell(throughput(config, load, how, dataset, _note), arguments)


def _serve(argv: Sequence[str]) -> int:
    """latencies, rates and goodput over HTTP, at an arrival rate"""
    from rtp_core.cli.bench_serve import parse_serve

    arguments, config, load = parse_serve(argv)
    from rtp_core.bench.serving import serve

    where, client = _parties(arguments, config)
    report = serve(where, client, load, _note)
    _save(report, arguments)
    return _tell(report, arguments)


def _save(report: Report, arguments: argparse.Namespace) -> None:
    """--save-result: the JSON in a folder, under a name that says what it is of."""
    from rtp_core.bench.vllm_keys import file_name

    if arguments.save_result:
        name = arguments.result_filename or file_name(report.beside)
        target = arguments.result_dir / name
        _write(target, as_text(report), "--save-result")
        _note(f"wrote {target}")


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
    return _tell(report, arguments)


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
    replay = Replay(Path(argv[0]).name, arrivals, scale)
    return _tell(trace(where, client, replay, _note), arguments)


def _parties(arguments: argparse.Namespace, config: EngineConfig) -> tuple[Where, Client]:
    from rtp_core.bench.service_level import parse_goals
    from rtp_core.bench.session import Client, Where

    for flag, target in (("--json", arguments.json), ("--report", arguments.report)):
        if target is not None:
            _check_writable(target, flag)
    where = Where(arguments.url, config, arguments.threads, _model_asked(arguments))
    goals = parse_goals(arguments.goodput)
    return where, Client(arguments.timeout, arguments.max_concurrency, arguments.warmup, goals)


def _model_asked(arguments: argparse.Namespace) -> str | None:
    """The name under which a running server is asked; as in vLLM --served-model-name first."""
    if arguments.url is None:
        return None
    given = vars(arguments)
    served = given["model.served_name"] or [None]
    return served[0] or arguments.model or given["model.path"]


def _tell(report: Report, arguments: argparse.Namespace) -> int:
    from rtp_core.bench.table import render

    found = report.as_json()
    sys.stdout.write(render(found))
    if arguments.json is not None:
        _write(arguments.json, as_text(report), "--json")
    if report.traffic is not None and arguments.report is not None:
        from rtp_core.bench.page import page

        _write(arguments.report, page(report, report.traffic), "--report")
    if report.interrupted:
        return INTERRUPTED
    return 1 if found["results"].get("errors") else 0


def as_text(report: Report) -> str:
    """The JSON object of a report."""
    return json.dumps(report.as_json(), indent=2, allow_nan=False) + "\n"


def _check_writable(target: Path, flag: str) -> None:
    """Before anything is measured; leaves no file behind. Raises ConfigError."""
    there = target.exists()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("ab"):
            pass
        if not there:
            target.unlink()
    except OSError as error:
        raise ConfigError(flag, f"cannot write {target}: {error.strerror}") from error


def _write(target: Path, content: str, flag: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content, encoding="utf-8")
    except OSError as error:
        raise ConfigError(flag, f"cannot write {target}: {error.strerror}") from error


def _note(line: str) -> None:
    sys.stderr.write(f"rtp bench: {line}\n")


_KINDS: dict[str, Callable[[Sequence[str]], int]] = {
    "latency": _latency,
    "throughput": _throughput,
    "serve": _serve,
    "load": _load,
    "trace": _trace,
}
