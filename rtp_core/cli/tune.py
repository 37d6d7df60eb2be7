"""`rtp tune MODEL`: the fastest forms of its kernels on this machine's GPU, kept for all starts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rtp_core.cli.options import engine_parser, parse_config
from rtp_core.cli.progress import ProgressBar

MOST_ROWS = 256


def command(argv: Sequence[str]) -> int:
    """One line a batch size; Ctrl-C keeps what was found and the next run goes on from there."""
    parser = engine_parser(
        "tune",
        "Time whole decode steps of a model's shape with other kernels and keep the fastest for "
        "this GPU, driver, triton and torch. Weights are random; none are read.",
    )
    parser.add_argument(
        "--batches",
        type=_batches,
        default=(1, 8, 32, 64, 128, MOST_ROWS),
        metavar="N,N,...",
        help=f"rows of the steps to tune, each 1 to {MOST_ROWS}. Default: 1,8,32,64,128,256.",
    )
    parser.add_argument(
        "--context",
        type=int,
        default=1024,
        metavar="TOKENS",
        help="length of texts, at least 2. Default: 1024.",
    )
    parser.add_argument("--again", action="store_true", help="also what was tuned before")
    arguments, config = parse_config(parser, argv)
    if arguments.context < 2:
        parser.error(f"--context {arguments.context}: at least 2")
    from rtp_core.engine.tune import Asked, tune_model

    asked = Asked(arguments.batches, arguments.context, arguments.again)
    for gain in tune_model(config, asked, lambda rows: ProgressBar(f"batch {rows}")):
        share = 1 - gain.after_s / gain.before_s
        known = "  (known; --again repeats it)" if gain.known else ""
        sys.stdout.write(
            f"batch {gain.rows:<4} {1e3 * gain.before_s:8.3f} ms -> {1e3 * gain.after_s:8.3f} ms  "
            f"{share:6.1%}{known}\n"
        )
        sys.stdout.flush()
    return 0


def _batches(text: str) -> tuple[int, ...]:
    try:
        found = tuple(sorted({int(one) for one in text.split(",")}))
    except ValueError:
        found = (0,)
    if found[0] < 1 or found[-1] > MOST_ROWS:
        raise argparse.ArgumentTypeError(f"{text!r}: numbers from 1 to {MOST_ROWS}, as 1,8,32")
    return found
