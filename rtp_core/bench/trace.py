"""Arrival traces in the form Mooncake published (kvcache-ai/Mooncake, FAST'25 traces).

One JSON object a line: ``timestamp`` (ms), ``input_length`` and ``output_length`` (tokens), and
``hash_ids``, one id for each 512 tokens of prompt. Equal ids stand for equal content. The texts
are not published, so each id seeds the tokens of its block.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtp_core.bench.prompts import is_count
from rtp_core.errors import ConfigError

BLOCK_TOKENS = 512
MAX_LINE_BYTES = 4 * 2**20
_SPREAD = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request of the trace; `at_s` from its first."""

    at_s: float
    input_length: int
    output_length: int
    hash_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Scale:
    """How a trace is changed: seconds between arrivals, and tokens a block and request.

    Lengths below 1 shorten prompts with their blocks, so that what is shared stays shared.
    """

    time: float = 1.0
    length: float = 1.0

    @property
    def block_tokens(self) -> int:
        """Tokens one hash id stands for."""
        return max(1, round(BLOCK_TOKENS * self.length))


def read_trace(path: Path, limit: int | None) -> list[Arrival]:
    """The first `limit` requests, in order of time. Raises ConfigError naming the line."""
    try:
        with path.open("rb") as file:
            found = list(parse_trace(file, limit))
    except OSError as error:
        raise ConfigError("TRACE", f"cannot read {path}: {error.strerror}") from error
    if not found:
        raise ConfigError("TRACE", f"{path} holds no request")
    return found


def parse_trace(lines: Iterable[bytes], limit: int | None) -> Iterator[Arrival]:
    """Arrivals as they stand; the first is at 0 s."""
    first_ms, last_ms, count = None, -math.inf, 0
    for number, line in enumerate(lines, 1):
        if limit is not None and count >= limit:
            return
        if not line.strip():
            continue
        fields = _fields(line, number)
        at_ms = fields["timestamp"]
        if at_ms < last_ms:
            raise _wrong(number, "timestamp", f"{at_ms} is before {last_ms} of an earlier line")
        first_ms = at_ms if first_ms is None else first_ms
        last_ms, count = at_ms, count + 1
        yield Arrival(
            (at_ms - first_ms) / 1e3,
            fields["input_length"],
            fields["output_length"],
            tuple(fields["hash_ids"]),
        )


def scaled(arrivals: Iterable[Arrival], scale: Scale) -> list[Arrival]:
    """Other gaps and other lengths; at least one token each way."""
    return [
        Arrival(
            one.at_s * scale.time,
            max(1, round(one.input_length * scale.length)),
            max(1, round(one.output_length * scale.length)),
            one.hash_ids,
        )
        for one in arrivals
    ]


def tokens_of(arrival: Arrival, block_tokens: int, token_ids: Sequence[int]) -> list[int]:
    """The prompt: the tokens of its blocks, cut to its length."""
    prompt: list[int] = []
    for hash_id in arrival.hash_ids:
        prompt += random.Random(hash_id * _SPREAD).choices(token_ids, k=block_tokens)
    if len(prompt) < arrival.input_length:  # rounding of scaled lengths
        missing = arrival.input_length - len(prompt)
        prompt += random.Random(~arrival.hash_ids[-1] * _SPREAD).choices(token_ids, k=missing)
    return prompt[: arrival.input_length]


def ideal_hit_rate(arrivals: Sequence[Arrival], block_tokens: int) -> float:
    """Share of prompt tokens that a cache of endless size would hold, one request at a time."""
    seen: set[int] = set()
    hits = 0
    for one in arrivals:
        prefix, matched, matching = 0, 0, True
        for hash_id in one.hash_ids:
            prefix = hash((prefix, hash_id))
            matching = matching and prefix in seen
            matched += matching
            seen.add(prefix)
        hits += min(matched * block_tokens, one.input_length)
    return hits / sum(one.input_length for one in arrivals)


def _fields(line: bytes, number: int) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise _wrong(number, "", f"longer than {MAX_LINE_BYTES} bytes")
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _wrong(number, "", f"no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise _wrong(number, "", "a JSON object was expected")
    _check(fields, number)
    return fields


def _check(fields: dict[str, Any], number: int) -> None:
    at = fields.get("timestamp")
    if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at < 1e15:
        raise _wrong(number, "timestamp", f"{at!r} is no number of milliseconds from 0")
    for name in ("input_length", "output_length"):
        if not is_count(fields.get(name), 1):
            raise _wrong(number, name, f"{fields.get(name)!r} is no number of tokens from 1")
    ids = fields.get("hash_ids")
    wanted = -(-fields["input_length"] // BLOCK_TOKENS)
    if not (isinstance(ids, list) and all(is_count(one, 0) for one in ids)):
        raise _wrong(number, "hash_ids", "not a list of ids from 0")
    if len(ids) != wanted:
        raise _wrong(
            number,
            "hash_ids",
            f"{len(ids)} ids for {fields['input_length']} tokens; {wanted} were expected, "
            f"one for each {BLOCK_TOKENS}",
        )


def _wrong(number: int, field: str, message: str) -> ConfigError:
    where = f"line {number}, {field}" if field else f"line {number}"
    return ConfigError(
        "TRACE", f"{where}: {message}", remedy="expected is the form Mooncake published, JSON lines"
    )
