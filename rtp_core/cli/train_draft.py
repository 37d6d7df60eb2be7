"""`rtp train-draft MODEL --method NAME --out DIR`: heads that draft for a model."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rtp_core.cli.progress import ITEMS, ProgressBar
from rtp_core.config.read import load_config
from rtp_core.training.order import Order
from rtp_core.training.settings import DataSettings, TrainSettings

_MINUTES = 8.0
_MB = 1_000_000


def command(argv: Sequence[str]) -> int:
    """Prints tokens a step of each head, by source of the prompts."""
    arguments = _parser().parse_args(argv)
    from rtp_core.training.run import train_draft

    found = train_draft(_order(arguments, argv), _told)
    for method, modes in found.items():
        sys.stdout.write(f"{arguments.out / method}\n{_table(modes)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rtp train-draft",
        description="Train heads that draft for a model, on texts that the model writes itself: "
        "minutes on one GPU, longer on a CPU. What was begun in --out goes on with --resume.",
    )
    add = parser.add_argument
    add("model", help="as for rtp serve")
    add("--method", required=True, help="eagle, medusa, or both with a comma: one pass trains all")
    add("--out", type=Path, required=True, help="directory for heads, one folder a method")
    add("--data", type=Path, help="directory of the texts, used again if there; unset is in --out")
    add("--resume", action="store_true", help="go on with what is in --out")
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--minutes", type=float, help=f"for all of it, texts included. Default: {_MINUTES:g}."
    )
    length.add_argument("--steps", type=int, help="training steps; a function of the seed then")
    add("--seed", type=int, default=0, help="of texts, heads and order. Default: 0.")
    texts, train = DataSettings(), TrainSettings(steps=1)
    for flag, default, text in (
        ("--texts", texts.texts, "most texts to write"),
        ("--questions", texts.questions, "questions that the model asks itself"),
        ("--max-length", texts.max_length, "longest text, in tokens"),
        ("--answer-tokens", texts.answer_tokens, "longest answer to learn from"),
        ("--held-out-prompts", texts.held_out_prompts, "to measure with, of each source"),
        ("--held-out-tokens", texts.held_out_tokens, "longest answer to measure with"),
        ("--draft-vocab", train.draft_vocab, "tokens that may be drafted"),
    ):
        add(flag, type=int, default=default, help=f"{text}. Default: {default}.")
    add("--step-tokens", type=int, help="tokens of a step. Default: 24576 on a GPU, else 4096.")
    add("--max-num-seqs", type=int, help="texts that are written at once; unset suits the device")
    add("--max-shard", help="split weights above so much, as 15MB")
    add("--revision", help="branch, tag or commit of a model of the hub")
    add("--dtype", choices=("auto", "bfloat16", "float32"), default="auto")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return parser


def _order(arguments: argparse.Namespace, argv: Sequence[str]) -> Order:
    minutes = arguments.minutes
    if minutes is None and arguments.steps is None:
        minutes = _MINUTES
    return Order(
        config=load_config(overrides=_settings(arguments)),
        methods=tuple(one.strip() for one in arguments.method.split(",")),
        out=arguments.out,
        train=TrainSettings(
            seed=arguments.seed,
            steps=arguments.steps,
            minutes=minutes,
            step_tokens=arguments.step_tokens,
            draft_vocab=arguments.draft_vocab,
        ),
        texts=DataSettings(
            seed=arguments.seed,
            texts=arguments.texts,
            questions=arguments.questions,
            max_length=arguments.max_length,
            answer_tokens=arguments.answer_tokens,
            held_out_tokens=arguments.held_out_tokens,
            held_out_prompts=arguments.held_out_prompts,
        ),
        data=arguments.data,
        resume=arguments.resume,
        max_shard_bytes=_bytes(arguments.max_shard),
        command=shlex.join(["rtp", "train-draft", *argv]),
    )


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    model = {"path": arguments.model, "dtype": arguments.dtype, "device": arguments.device}
    if arguments.revision is not None:
        model["revision"] = arguments.revision
    scheduling = {}
    if arguments.max_num_seqs is not None:
        scheduling["max_num_seqs"] = arguments.max_num_seqs
    return {"model": model, "scheduling": scheduling}


def _bytes(text: str | None) -> int | None:
    """``15MB`` as the hub's tools write it."""
    if text is None:
        return None
    number = text.upper().removesuffix("MB")
    if not number.isdigit() or not int(number):
        _parser().error(f"--max-shard {text!r} is no size: write it as 15MB")
    return int(number) * _MB


def _told(label: str, total: int) -> Any:
    """A bar for each part; what is loaded is told in bytes."""
    bar = ProgressBar(label) if label == "loading" else ProgressBar(label, unit=ITEMS)
    done = 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        bar(done, total)

    return advance


def _table(modes: Mapping[str, Any]) -> str:
    """Tokens a step by the longest draft, a line for each source."""
    lines = []
    for mode, sources in modes.items():
        for source, found in sources.items():
            speeds = found["tokens_per_step"].items()
            cells = "  ".join(f"K={depth} {speed:.2f}" for depth, speed in speeds)
            lines.append(f"  {mode:22} {source:6} {cells}  ({found['texts']} texts)\n")
    return "".join(lines)
