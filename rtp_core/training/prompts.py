"""All prompts of a training, and those it is measured with."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from rtp_core.training.chat_prompts import chat_prompts
from rtp_core.training.code_prompts import code_prompts

HELD_OUT_OF_A_SOURCE = 64


@dataclass(frozen=True, slots=True)
class Prompts:
    """(source, question) to train on, shuffled; questions to measure with by source.

    The model's own questions join both later.
    """

    train: list[tuple[str, str]]
    held_out: dict[str, list[str]]


@cache
def make_prompts(seed: int) -> Prompts:
    """The same for a seed and a version of Python. Not to be changed: it is made once."""
    rng = random.Random(seed)
    chat, chat_held_out = chat_prompts(rng)
    code = code_prompts(rng)
    held_out = dict(_merged(chat_held_out, code.held_out))
    kept_out = {one for many in held_out.values() for one in many}  # modules share functions
    train = [
        (source, one)
        for source, many in _merged(chat, code.train)
        for one in many
        if one not in kept_out
    ]
    rng.shuffle(train)
    held_out = {source: _some(many, rng) for source, many in held_out.items()}
    return Prompts(train, held_out)


def _merged(chat: list[str], others: dict[str, list[str]]) -> list[tuple[str, list[str]]]:
    """Without repetitions, in a fixed order."""
    return [(source, sorted(set(many))) for source, many in {"chat": chat, **others}.items()]


def _some(prompts: list[str], rng: random.Random) -> list[str]:
    return rng.sample(prompts, min(HELD_OUT_OF_A_SOURCE, len(prompts)))
