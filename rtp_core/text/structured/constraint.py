"""One sequence under a grammar: where it stands, and which tokens may come next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rtp_core.api import SamplingParams, SequenceStart

if TYPE_CHECKING:
    from llguidance import LLMatcher


class GrammarError(Exception):
    """The grammar became too complex on the way, or broke; its sequence ends."""


class Constraint:
    """Follows the tokens of a sequence; `masks` looks ahead without moving.

    `matcher` is owned from here on. A row of a mask has `words` int32, token t at bit t % 32 of
    word t // 32. Until `structured_after` has come, everything is allowed. Stop tokens are
    masked before `min_tokens` tokens, unless the grammar leaves nothing else.
    """

    def __init__(
        self, matcher: LLMatcher, start: SequenceStart, vocab_size: int, eos: frozenset[int]
    ) -> None:
        sampling: SamplingParams = start.sampling
        self.words = -(-vocab_size // 32)
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._eos = eos
        self._marker = sampling.structured_after
        self._tail: tuple[int, ...] = ()
        self._active = self._marker is None
        self._num_free = sampling.min_tokens
        self._full = _mask(vocab_size)
        self._unstopped = _mask(vocab_size, eos | set(sampling.stop_token_ids))
        self.complete = False
        self.advance(start.token_ids[start.num_prompt_tokens :])

    def masks(self, drafts: Sequence[int]) -> np.ndarray:
        """int32 [1 + drafts, words]: what may follow the sequence, and each draft in turn.

        Past a draft that may not come, or that ends the text, everything is allowed: nothing
        that is drawn there counts. Raises GrammarError.
        """
        out = np.empty((1 + len(drafts), self.words), dtype=np.int32)
        active, tail, taken, rows = self._active, self._tail, 0, 0
        try:
            for place, draft in enumerate((*drafts, None)):
                self._fill(out[place], place)
                rows = place + 1
                if draft is None or draft in self._eos or not _allows(out[place], draft):
                    break
                if self._active:
                    self._take(draft)
                    taken += 1
                    if self._matcher.is_stopped():
                        break
                else:
                    self._watch(draft)
        finally:
            self._active, self._tail = active, tail
            if taken:
                self._matcher.rollback(taken)
        out[rows:] = self._full
        return out

    def advance(self, token_ids: Sequence[int]) -> int:
        """Tokens were drawn for good; how many of them count, which is all unless the text is
        complete before. Raises GrammarError."""
        for place, token in enumerate(token_ids):
            self._num_free -= 1
            if self._active:
                self._take(token)
                self.complete = self._matcher.is_stopped()
                if self.complete:
                    return place + 1
            else:
                self._watch(token)
        return len(token_ids)

    def _fill(self, row: np.ndarray, place: int) -> None:
        if self._active:
            self._matcher.unsafe_compute_mask_ptr(row.ctypes.data, row.nbytes)
            if self._matcher.is_error():
                raise GrammarError(self._matcher.get_error())
        else:
            row[:] = self._full
        if place < self._num_free and (row & self._unstopped).any():
            row &= self._unstopped

    def _take(self, token: int) -> None:
        if not self._matcher.consume_token(token):
            raise GrammarError(self._matcher.get_error())

    def _watch(self, token: int) -> None:
        """Before the marker: remember as many tokens as it has."""
        marker = self._marker or ()
        self._tail = (*self._tail, token)[-len(marker) :]
        self._active = self._tail == marker


def _mask(vocab_size: int, without: Iterable[int] = ()) -> np.ndarray:
    """Every token of the vocabulary but those."""
    bits = np.zeros(-(-vocab_size // 32) * 32, dtype=np.uint8)
    bits[:vocab_size] = 1
    bits[[token for token in without if token < vocab_size]] = 0
    return np.packbits(bits, bitorder="little").view(np.int32)


def _allows(row: np.ndarray, token: int) -> bool:
    return bool((int(row[token >> 5]) >> (token & 31)) & 1)
