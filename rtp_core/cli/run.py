"""`rtp run [MODEL] [PROMPT]`: one answer, or a chat when no prompt is given."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rtp_core.cli.options import engine_parser, parse_config
from rtp_core.cli.progress import ProgressBar

if TYPE_CHECKING:
    from rtp_core import LLM, SamplingParams


def command(argv: Sequence[str]) -> int:
    """Exit status 0; the answer goes to standard output, all else to standard error."""
    parser = engine_parser("run", "Answer a prompt, or chat.")
    parser.add_argument("prompt", nargs="?", help="question; without it a chat begins")
    parser.usage = "rtp run [MODEL] [PROMPT] [flags]"
    parser.add_argument(
        "--max-tokens", type=int, default=512, metavar="N",
        help="longest answer in tokens, at least 1. Default: 512.",
    )  # fmt: skip
    parser.add_argument(
        "--temperature", type=float, metavar="X",
        help="0 to 2, 0 takes the likeliest token. Default: the model's own.",
    )  # fmt: skip
    arguments, config = parse_config(parser, argv)
    from rtp_core import SamplingParams
    from rtp_core.engine.llm import LLM

    changes: dict[str, float] = {"max_tokens": arguments.max_tokens}
    if arguments.temperature is not None:
        changes["temperature"] = arguments.temperature
    with LLM.from_config(config, ProgressBar("loading")) as llm:
        base = dataclasses.replace(SamplingParams(), **{**llm.info.defaults, **changes})
        if arguments.prompt is not None:
            _answer(llm, [{"role": "user", "content": arguments.prompt}], base)
        else:
            _chat(llm, base)
    return 0


def _answer(llm: LLM, messages: list[dict[str, str]], sampling: SamplingParams) -> str:
    parts: list[str] = []
    for chunk in llm.stream_chat(messages, sampling):
        parts.append(chunk.text)
        sys.stdout.write(chunk.text)
        sys.stdout.flush()
    sys.stdout.write("\n")
    return "".join(parts)


def _chat(llm: LLM, sampling: SamplingParams) -> None:
    messages: list[dict[str, str]] = []
    sys.stderr.write("Type a message; an empty line ends the chat.\n")
    for line in _lines():
        messages.append({"role": "user", "content": line})
        messages.append({"role": "assistant", "content": _answer(llm, messages, sampling)})


def _lines() -> Iterator[str]:
    while True:
        sys.stderr.write("> ")
        sys.stderr.flush()
        line = sys.stdin.readline().strip()
        if not line:
            return
        yield line
