"""`rtp convert MODEL --out DIR`: a directory that is served without any change to its weights."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rtp_core.cli.progress import ProgressBar
from rtp_core.config.schema import EngineConfig, ModelConfig

_WEIGHTS = {"auto": "auto", "int4": "int4", "int8": "int8", "none": "bf16"}


def command(argv: Sequence[str]) -> int:
    """Prints the directory; `rtp serve DIR` then answers as the original would."""
    parser = argparse.ArgumentParser(
        prog="rtp convert",
        description="Write a model as the engine holds it: fused, split and quantized, ready to "
        "serve. The whole model is in memory meanwhile.",
    )
    parser.add_argument("model", help="as for rtp serve; with --check a directory converted before")
    parser.add_argument("--out", type=Path, help="directory to write")
    parser.add_argument("--force", action="store_true", help="replace a model converted before")
    parser.add_argument("--check", action="store_true", help="compare digests, write nothing")
    parser.add_argument("--revision", help="branch, tag or commit of a model of the hub")
    parser.add_argument(
        "--tensor-parallel-size", type=int, default=1, metavar="N",
        help="ranks to split for, at least 1. Default: 1.",
    )  # fmt: skip
    parser.add_argument(
        "--quantize", choices=tuple(_WEIGHTS), default="auto",
        help="auto keeps the codes of quantized files, int4 and int8 round other weights too, none "
        "keeps no codes. Default: auto.",
    )  # fmt: skip
    parser.add_argument(
        "--dtype", choices=("auto", "bfloat16", "float32"), default="auto",
        help="precision of weights and activations; auto is bfloat16. Default: auto.",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    if arguments.tensor_parallel_size < 1:
        parser.error("--tensor-parallel-size must be at least 1")
    if arguments.check:
        return _check(Path(arguments.model))
    if arguments.out is None:
        parser.error("--out is required")
    from rtp_core.engine.convert import convert
    from rtp_core.loading.converted.directory import Target

    model = ModelConfig(
        path=arguments.model,
        revision=arguments.revision,
        dtype=arguments.dtype,
        device="cpu",
        cpu_weights=_WEIGHTS[arguments.quantize],
    )
    target = Target(arguments.out, arguments.tensor_parallel_size, arguments.force)
    found = convert(EngineConfig(model=model), target, ProgressBar("converting"))
    sys.stdout.write(f"{found}\n")
    return 0


def _check(folder: Path) -> int:
    from rtp_core.loading.converted.check import check_files

    sys.stdout.write(f"{folder}: {check_files(folder):,} bytes as they were written\n")
    return 0
