"""`rtp bench serve`: our words and those of `vllm bench serve` for the same things."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtp_core.bench.vllm_names import BACKENDS, METRICS, OWN_FIELDS, is_reserved
from rtp_core.cli.bench_flags import (
    add_client,
    add_prompts,
    integer,
    parser_of,
    positive,
    share,
)
from rtp_core.cli.help import EngineParser
from rtp_core.config.flags import config_from_args
from rtp_core.errors import ConfigError

if TYPE_CHECKING:
    from rtp_core.bench.serving import OpenLoop
    from rtp_core.bench.vllm_keys import Keys
    from rtp_core.config.schema import EngineConfig

ENDPOINTS = {
    "completions": "completions",
    "/v1/completions": "completions",
    "chat": "chat",
    "/v1/chat/completions": "chat",
}
_PERCENTILES = "50,90,95,99"


def parse_serve(argv: Sequence[str]) -> tuple[argparse.Namespace, EngineConfig, OpenLoop]:
    """Arguments, configuration and what is to be sent. Raises ConfigError naming the flag."""
    parser = _parser()
    arguments = parser.parse(argv)
    _take_engine_flags(arguments)
    config = config_from_args(arguments)
    return arguments, config, _load(arguments)


def _parser() -> EngineParser:
    parser = parser_of("serve", "Latencies, rates and goodput over HTTP, at an arrival rate.")
    _add_lengths(parser)
    add_prompts(parser, 100)
    parser.add_argument(
        "--dataset-name", choices=("random", "custom"),
        help="as in vLLM: custom is --dataset. Default: custom where there is one, else random.",
    )  # fmt: skip
    add_client(parser)
    _add_arrivals(parser)
    _add_sampling(parser)
    _add_results(parser)
    return parser


def _add_lengths(parser: argparse.ArgumentParser) -> None:
    tokens = integer(1, "tokens")
    parser.add_argument(
        "--input-len", "--random-input-len", type=tokens, default=128, metavar="TOKENS",
        help="prompt tokens a request, at least 1. Default: 128.",
    )  # fmt: skip
    parser.add_argument(
        "--output-len", "--random-output-len", type=tokens, default=64, metavar="TOKENS",
        help="tokens generated a request, at least 1. Default: 64.",
    )  # fmt: skip
    parser.add_argument(
        "--random-range-ratio", type=share, default=0.0, metavar="X",
        help="lengths are uniform from 1 - X to 1 + X times those, X from 0, below 1. Default: 0.",
    )  # fmt: skip
    parser.add_argument(
        "--random-prefix-len", type=integer(0, "tokens"), default=0, metavar="TOKENS",
        help="tokens before --input-len that all prompts share, at least 0. Default: 0.",
    )  # fmt: skip


def _add_arrivals(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--request-rate", type=positive("requests a second", endless=True), default=float("inf"),
        metavar="PER_SECOND",
        help="mean arrivals a second, above 0, or inf: all at once. Default: inf.",
    )  # fmt: skip
    parser.add_argument(
        "--burstiness", type=positive("a shape"), default=1.0, metavar="X",
        help="gaps are gamma distributed of this shape, above 0: 1 is Poisson, less comes in "
        "bursts, more is more even. Default: 1.",
    )  # fmt: skip
    parser.add_argument(
        "--workload-seed", type=integer(0, "its own"), metavar="SEED",
        help="seed of arrival times and random prompts, at least 0; also --seed. Default: 0.",
    )  # fmt: skip


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--endpoint", type=_endpoint, metavar="completions|chat",
        help="completions takes exact token counts, chat text; also as a path. "
        "Default: completions.",
    )  # fmt: skip
    parser.add_argument(
        "--backend", choices=tuple(BACKENDS), help="as in vLLM: openai-chat is --endpoint chat"
    )
    parser.add_argument(
        "--ignore-eos", action=argparse.BooleanOptionalAction, default=True,
        help="answers have their full length. Default: on.",
    )  # fmt: skip
    parser.add_argument(
        "--temperature", type=float, default=0.0, metavar="X",
        help="0 is greedy. Default: 0.",
    )  # fmt: skip
    parser.add_argument(
        "--extra-body", type=_object, default={}, metavar="JSON",
        help="an object of more fields for each request, as '{\"top_p\": 0.9}'",
    )  # fmt: skip


def _add_results(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("results in vLLM's words, beside ours")
    group.add_argument(
        "--percentile-metrics", type=_metrics, default=METRICS, metavar="NAME,...",
        help=f"which are told. Default: {','.join(METRICS)}.",
    )  # fmt: skip
    group.add_argument(
        "--metric-percentiles", type=_percentiles, default=_percentiles(_PERCENTILES),
        metavar="N,...",
        help=f"which of each, above 0, at most 100. Default: {_PERCENTILES}.",
    )  # fmt: skip
    group.add_argument(
        "--save-result", action="store_true", help="write the JSON under a name that says what of"
    )
    group.add_argument(
        "--save-detailed", action="store_true", help="with a list for each request's figures"
    )
    group.add_argument(
        "--result-dir", type=Path, default=Path(), metavar="DIR",
        help="where --save-result writes. Default: here.",
    )  # fmt: skip
    group.add_argument("--result-filename", metavar="FILE", help="the name, in --result-dir")
    group.add_argument(
        "--metadata", nargs="+", default=[], metavar="KEY=VALUE", help="to be kept in the JSON"
    )


def _take_engine_flags(arguments: argparse.Namespace) -> None:
    """--host and --port name a running server and --seed the workload's, as in vLLM.

    The engine's own would do nothing here: a server of ours listens on a free loopback port.
    """
    given = vars(arguments)
    host, port = given["server.host"], given["server.port"]
    if host is not None or port is not None:
        if arguments.url is not None:
            raise ConfigError(
                "--url", "names the server, and so do --host and --port", remedy="name it once"
            )
        address = f"[{host}]" if host and ":" in host else host or "127.0.0.1"
        arguments.url = f"http://{address}:{port or 8000}"
        given["server.host"] = given["server.port"] = None
    seed = given.pop("model.seed", None)
    if seed is not None and arguments.workload_seed is None:
        arguments.workload_seed = _checked(integer(0, "its own"), "--seed", seed)


def _load(arguments: argparse.Namespace) -> OpenLoop:
    from rtp_core.bench.prompts import Lengths, read_dataset
    from rtp_core.bench.serving import OpenLoop

    asks = None
    if _has_dataset(arguments):
        asks = read_dataset(arguments.dataset, arguments.num_prompts, arguments.output_len)
    return OpenLoop(
        _chosen_endpoint(arguments),
        arguments.request_rate,
        arguments.num_prompts,
        Lengths(
            arguments.input_len,
            arguments.output_len,
            arguments.random_range_ratio,
            arguments.random_prefix_len,
        ),
        arguments.workload_seed or 0,
        asks,
        arguments.burstiness,
        _sampling(arguments),
        _keys(arguments),
    )


def _has_dataset(arguments: argparse.Namespace) -> bool:
    name, file = arguments.dataset_name, arguments.dataset
    if name == "custom" and file is None:
        raise ConfigError("--dataset-name", "custom has no file", remedy="add --dataset-path FILE")
    if name == "random" and file is not None:
        raise ConfigError(
            "--dataset-name", "random reads no file", remedy=f"leave out --dataset {file}"
        )
    return file is not None


def _chosen_endpoint(arguments: argparse.Namespace) -> str:
    meant = BACKENDS.get(arguments.backend)
    if None not in (meant, arguments.endpoint) and meant != arguments.endpoint:
        raise ConfigError(
            "--backend",
            f"{arguments.backend} does not agree with --endpoint {arguments.endpoint}",
            remedy="leave one of them out",
        )
    return arguments.endpoint or meant or "completions"


def _sampling(arguments: argparse.Namespace) -> dict[str, Any]:
    ignoring = {"ignore_eos": True} if arguments.ignore_eos else {}
    return {"temperature": arguments.temperature, **ignoring, **arguments.extra_body}


def _keys(arguments: argparse.Namespace) -> Keys:
    from rtp_core.bench.vllm_keys import Keys

    pairs = [pair.partition("=") for pair in arguments.metadata]
    for key, equals, _ in pairs:
        if not (key and equals):
            raise ConfigError("--metadata", f"{key!r} has no value", remedy="write KEY=VALUE")
        if is_reserved(key):
            raise ConfigError(
                "--metadata", f"{key!r} is a key of the results", remedy="choose another"
            )
    return Keys(
        arguments.percentile_metrics,
        arguments.metric_percentiles,
        {key: value for key, _, value in pairs},
        arguments.save_detailed,
    )


def _endpoint(text: str) -> str:
    if text not in ENDPOINTS:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(ENDPOINTS)}")
    return ENDPOINTS[text]


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object")
    if own := sorted(OWN_FIELDS & set(found)):
        raise argparse.ArgumentTypeError(f"{own[0]!r} is set by the measurement itself")
    return found


def _metrics(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not set(names) <= set(METRICS):
        raise argparse.ArgumentTypeError(f"{text!r}: give some of {', '.join(METRICS)}")
    return names


def _percentiles(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(one) for one in text.split(","))
    except ValueError:
        found = (0.0,)
    if not all(0 < one <= 100 for one in found):
        raise argparse.ArgumentTypeError(f"{text!r}: give numbers above 0, at most 100, as 50,99")
    return found


def _checked(parse: Callable[[str], int], flag: str, text: str) -> int:
    try:
        return parse(text)
    except argparse.ArgumentTypeError as error:
        raise ConfigError(flag, str(error)) from error
