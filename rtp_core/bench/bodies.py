"""What a server is asked: request bodies, made of what it says of its own tokens."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import msgspec

from rtp_core.bench.client import Target, fetch
from rtp_core.bench.printable import printable
from rtp_core.bench.prompts import Ask
from rtp_core.errors import ConfigError, RtpError

PATHS = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}
GREEDY: Mapping[str, Any] = {"temperature": 0, "ignore_eos": True}
_SAMPLE_WORDS = 4000
_TRIES = 6
_LETTERS = "aaabcdeeeefghiiijklmnnooopqrrsssttuuvwxyz"
_WORD_TEXT = """
the of and to in that was his he it with is for as had you not be her on at by which have or from
this him but all she they were my are me one their so an said them we who would been will no when
there if more out up into do any your what has man could other than our some very time upon about
may its only now like little then can made should did us such great
"""
_WORDS = _WORD_TEXT.split()
_Form = TypeVar("_Form")


@dataclass(frozen=True, slots=True)
class Served:
    """A server's model. `token_ids` are ids it knows, empty if it cannot tell."""

    name: str
    max_model_len: int | None
    token_ids: tuple[int, ...]


async def inspect(target: Target, name: str | None = None) -> Served:
    """Ask a server what it serves: the model called `name`, else its first.

    Raises RtpError when it serves nothing, or nothing of that name.
    """
    status, models = await fetch(target, "GET", "/v1/models")
    try:
        cards = msgspec.convert(models, _Models).data if status == 200 else []
    except msgspec.ValidationError:
        cards = []
    if not cards:
        raise RtpError(
            f"GET /v1/models was answered with {status} and no list of models",
            remedy="check --url, and --api-key where the server asks for one",
        )
    named = [card for card in cards if name in (None, card.id)]
    if not named:
        names = ", ".join(printable(card.id) for card in cards)
        raise RtpError(
            f"{target.host}:{target.port} does not serve {name!r}",
            remedy=f"leave the model out, or name one of: {names}",
        )
    return Served(named[0].id, named[0].max_model_len, await _known_ids(target))


class _Card(msgspec.Struct):
    id: str
    max_model_len: int | None = None


class _Models(msgspec.Struct):
    data: list[_Card]


class _Tokens(msgspec.Struct):
    tokens: list[Annotated[int, msgspec.Meta(ge=0, lt=2**31)]]


class _Count(msgspec.Struct):
    count: Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


async def _known_ids(target: Target) -> tuple[int, ...]:
    """Ids of made-up words: ordinary tokens of whatever vocabulary."""
    draw = random.Random(0)
    made = ("".join(draw.choices(_LETTERS, k=draw.randint(1, 9))) for _ in range(_SAMPLE_WORDS))
    asked = {"prompt": " ".join(made), "add_special_tokens": False}
    found = await _tokenized(target, asked, _Tokens)
    return () if found is None else tuple(sorted(set(found.tokens)))


async def _tokenized(target: Target, asked: dict[str, Any], kind: type[_Form]) -> _Form | None:
    """The answer of /tokenize; None where there is none, or another thing is answered."""
    status, answer = await fetch(target, "POST", "/tokenize", asked)
    with contextlib.suppress(msgspec.ValidationError):
        return msgspec.convert(answer, kind) if status == 200 else None
    return None


async def words_for(target: Target, endpoint: str, wanted: int) -> int:
    """How many words make a prompt of about `wanted` tokens; its template counts for chat.

    A server without /tokenize is trusted to make one token of a word. Raises ConfigError
    when the template alone is longer.
    """
    num_words = wanted
    for _ in range(_TRIES):
        text = words(num_words, seed=0)
        asked = {"messages": _said(text)} if endpoint == "chat" else {"prompt": text}
        found = await _tokenized(target, asked, _Count)
        if found is None:
            return wanted
        over = found.count - wanted
        if over == 0:
            return num_words
        if num_words == 1 and over > 0:
            raise ConfigError(
                "--input-len",
                f"the model's template and one word are {found.count} tokens, "
                f"{wanted} are asked for",
                remedy=f"raise it to {found.count} or use --endpoint completions",
            )
        per_word = max(1.0, found.count / (num_words + 8))
        num_words = max(1, num_words - (int(over / per_word) or (1 if over > 0 else -1)))
    return num_words


def text_ask(num_words: int, endpoint: str, output_len: int, seed: int, prefix: str = "") -> Ask:
    """Words that differ from the first after the prefix with the seed."""
    text = prefix + words(num_words, seed)
    if endpoint == "chat":
        return Ask(None, tuple(_said(text)), output_len)
    return Ask(text, None, output_len)


def body_of(served: Served, endpoint: str, ask: Ask, sampling: Mapping[str, Any] = GREEDY) -> bytes:
    """A streaming request; unless `sampling` says so, greedy and not ending before its length."""
    fields: dict[str, Any] = {
        "model": served.name,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": ask.output_len,
        **sampling,
    }
    if endpoint == "chat":
        fields["messages"] = ask.messages or _said(_as_text(ask))
    elif ask.prompt is None:
        raise ConfigError(
            "--dataset", "messages need the chat endpoint", remedy="pass --endpoint chat"
        )
    else:
        fields["prompt"] = ask.prompt
    return msgspec.json.encode(fields)


def bodies(
    served: Served, endpoint: str, asks: Sequence[Ask], sampling: Mapping[str, Any] = GREEDY
) -> list[Callable[[], bytes]]:
    """Made before the clock starts."""
    made = [body_of(served, endpoint, ask, sampling) for ask in asks]
    return [lambda body=body: body for body in made]


def words(num_words: int, seed: int) -> str:
    """Ordinary words, chosen by the seed."""
    return " ".join(random.Random(seed).choices(_WORDS, k=num_words))


def _said(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def _as_text(ask: Ask) -> str:
    if not isinstance(ask.prompt, str):
        raise ConfigError(
            "--dataset",
            "the chat endpoint takes text, not token ids",
            remedy="give messages or text, or use --endpoint completions",
        )
    return ask.prompt
