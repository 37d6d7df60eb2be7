"""How tokens are spelled in log-probabilities: text, raw bytes, or ``token_id:N``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from rtp_core.api import TokenLogprob
from rtp_core.text.tokenizer import Tokenizer

LOWEST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON cannot say."""


class TokenNames:
    """Spells tokens for one request; `as_ids` replaces texts by ``token_id:N``."""

    def __init__(self, tokenizer: Tokenizer, *, as_ids: bool) -> None:
        self._tokenizer = tokenizer
        self._as_ids = as_ids

    def name(self, token_id: int) -> str:
        """The token as a string."""
        return by_id(token_id) if self._as_ids else self._tokenizer.token_text(token_id)

    def chat_entry(self, one: TokenLogprob) -> dict[str, Any]:
        """An element of chat's ``logprobs.content``."""
        top = [self._scored(token_id, logprob) for token_id, logprob in one.top]
        return {**self._scored(one.token_id, one.logprob), "top_logprobs": top}

    def top_by_name(self, one: TokenLogprob) -> dict[str, float]:
        """Completions' mapping: the best tokens and the one drawn, by name.

        Parts of characters share the text U+FFFD; from the second on they go by id.
        """
        named: dict[str, float] = {}
        for token_id, logprob in {one.token_id: one.logprob, **dict(one.top)}.items():
            name = self.name(token_id)
            named[by_id(token_id) if name in named else name] = finite(logprob)
        return named

    def prompt_entries(
        self, logprobs: Sequence[TokenLogprob], most: int
    ) -> list[dict[str, Any] | None]:
        """vLLM's `prompt_logprobs`: None for the first token, then by id what could stand there.

        `most` alternatives each. The rank of a token that is not among the best is not known.
        """
        return [None, *(self._ranked(one, most) for one in logprobs)]

    def echo_entries(
        self, first: int, logprobs: Sequence[TokenLogprob], most: int
    ) -> dict[str, Any]:
        """As `completion_entries`, of a prompt: nothing precedes its `first` token."""
        cut = [TokenLogprob(one.token_id, one.logprob, one.top[:most]) for one in logprobs]
        entries = self.completion_entries(cut, len(self._tokenizer.token_text(first)))
        head: dict[str, Any] = {"tokens": self.name(first), "text_offset": 0}
        return {name: [head.get(name), *values] for name, values in entries.items()}

    def _ranked(self, one: TokenLogprob, most: int) -> dict[str, Any]:
        top = one.top[:most]
        ranks = {token_id: rank for rank, (token_id, _) in enumerate(top, start=1)}
        return {
            str(token_id): {
                "logprob": finite(logprob),
                "rank": ranks.get(token_id),
                "decoded_token": self._tokenizer.token_text(token_id),
            }
            for token_id, logprob in {one.token_id: one.logprob, **dict(top)}.items()
        }

    def completion_entries(self, logprobs: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
        """Completions' four parallel lists; `offset` is where the first token's text begins."""
        lengths = [len(self._tokenizer.token_text(one.token_id)) for one in logprobs]
        offsets = list(accumulate(lengths, initial=offset))[:-1]
        return {
            "tokens": [self.name(one.token_id) for one in logprobs],
            "token_logprobs": [finite(one.logprob) for one in logprobs],
            "top_logprobs": [self.top_by_name(one) for one in logprobs],
            "text_offset": offsets,
        }

    def length(self, logprobs: Sequence[TokenLogprob]) -> int:
        """Characters of these tokens' texts."""
        return sum(len(self._tokenizer.token_text(one.token_id)) for one in logprobs)

    def _scored(self, token_id: int, logprob: float) -> dict[str, Any]:
        return {
            "token": self.name(token_id),
            "logprob": finite(logprob),
            "bytes": list(self._tokenizer.token_bytes(token_id)),
        }


def by_id(token_id: int) -> str:
    """vLLM's spelling of a token that has no text of its own."""
    return f"token_id:{token_id}"


def finite(logprob: float) -> float:
    """`logprob`, or the lowest value that stands for minus infinity."""
    return max(logprob, LOWEST_LOGPROB)
