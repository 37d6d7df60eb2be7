"""Prompts to measure with: random tokens, or a file of one's own."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtp_core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `prompt` is text or token ids, or None beside chat `messages`."""

    prompt: str | tuple[int, ...] | None
    messages: tuple[dict[str, Any], ...] | None
    output_len: int


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of random requests.

    With `range_ratio` r lengths are uniform from (1 - r) to (1 + r) times the given ones; the
    first `prefix_len` tokens are those of all prompts, and come on top.
    """

    input_len: int
    output_len: int
    range_ratio: float = 0.0
    prefix_len: int = 0

    @property
    def longest(self) -> tuple[int, int]:
        """Most tokens in and out."""
        more = 1 + self.range_ratio
        return self.prefix_len + int(self.input_len * more), int(self.output_len * more)

    def draw(self, count: int, seed: int) -> list[tuple[int, int]]:
        """(tokens in beside the prefix, tokens out) of each request, at least 1 each."""
        draw = random.Random(seed)
        return [(self._one(self.input_len, draw), self._one(self.output_len, draw))
                for _ in range(count)]  # fmt: skip

    def _one(self, length: int, draw: random.Random) -> int:
        low, high = length * (1 - self.range_ratio), length * (1 + self.range_ratio)
        return max(1, draw.randint(int(low), int(high)))


def random_prompts(count: int, length: int, vocab_size: int, seed: int) -> list[tuple[int, ...]]:
    """Prompts that share no prefix, so that the prefix cache cannot help."""
    return random_choices(count, length, range(vocab_size), seed)


def random_choices(
    count: int, length: int, token_ids: Sequence[int], seed: int
) -> list[tuple[int, ...]]:
    """As `random_prompts`, out of the tokens given."""
    draw = random.Random(seed)
    return [tuple(draw.choices(token_ids, k=length)) for _ in range(count)]


def read_dataset(path: Path, count: int, output_len: int) -> list[Ask]:
    """The first `count` requests of a JSONL file; see `read_lines` for its form.

    Raises ConfigError naming the line, or when the file has fewer.
    """
    try:
        with path.open("rb") as file:
            asks = [ask for _, ask in zip(range(count), read_lines(file, output_len), strict=False)]
    except OSError as error:
        raise ConfigError("--dataset", f"cannot read {path}: {error.strerror}") from error
    if len(asks) < count:
        raise ConfigError(
            "--dataset",
            f"{path} holds {len(asks)} requests, {count} are asked for",
            remedy=f"pass --num-prompts {max(1, len(asks))}",
        )
    return asks


def read_lines(lines: Iterable[bytes], output_len: int) -> Iterator[Ask]:
    """One JSON object a line; empty lines are passed over.

    ``prompt``: text or token ids, or else ``messages``: as the chat endpoint takes them;
    ``output_len``: tokens to generate, `output_len` if absent. Other keys are not read.
    """
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _ask(_object(line, number), number, output_len)


def _object(line: bytes, number: int) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _wrong(number, f"no JSON: {error}") from error
    if not isinstance(found, dict):
        raise _wrong(number, "a JSON object was expected")
    return found


def _ask(fields: dict[str, Any], number: int, output_len: int) -> Ask:
    length = fields.get("output_len", output_len)
    if not is_count(length, 1):
        raise _wrong(number, f"output_len is {length!r}; a number of tokens from 1 was expected")
    prompt, messages = fields.get("prompt"), fields.get("messages")
    if (prompt is None) == (messages is None):
        raise _wrong(number, "either prompt or messages was expected")
    if prompt is not None:
        return Ask(_prompt(prompt, number), None, length)
    if not (isinstance(messages, list) and messages and all(isinstance(m, dict) for m in messages)):
        raise _wrong(number, "messages is not a list of objects")
    return Ask(None, tuple(messages), length)


def _prompt(prompt: Any, number: int) -> str | tuple[int, ...]:
    if isinstance(prompt, str) and prompt:
        return prompt
    if isinstance(prompt, list) and prompt and all(is_count(one, 0) for one in prompt):
        return tuple(prompt)
    raise _wrong(number, "prompt is neither text nor a list of token ids")


def token_ids(asks: Sequence[Ask], tokenizer_dir: str) -> list[tuple[int, ...]]:
    """The prompts in tokens. Raises ConfigError for chat messages, which need a server."""
    from rtp_core.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(Path(tokenizer_dir))
    batch: list[tuple[int, ...]] = []
    for number, ask in enumerate(asks, 1):
        if ask.prompt is None:
            raise ConfigError(
                "--dataset",
                f"request {number} has messages, which need a server",
                remedy="give prompt, or use rtp bench serve --endpoint chat",
            )
        ids = ask.prompt
        if isinstance(ids, str):
            ids = tokenizer.encode(ids, add_special_tokens=True, allow_special=False)
        batch.append(tuple(ids))
    return batch


def is_count(value: Any, least: int) -> bool:
    """A JSON integer in a sane range; true is none."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**31


def _wrong(number: int, message: str) -> ConfigError:
    return ConfigError(
        "--dataset", f"line {number}: {message}", remedy='write {"prompt": …, "output_len": …}'
    )
