"""Tokens that may not follow, whatever a grammar says: not allowed, or the end of a bad word."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rtp_core.api import SequenceStart


class Bans:
    """Follows the tokens of a sequence; `masks` looks ahead without moving.

    Masks are packed as those of `Constraint`.
    """

    def __init__(self, start: SequenceStart, vocab_size: int) -> None:
        sampling = start.sampling
        self._allowed = _packed(vocab_size, sampling.allowed_token_ids)
        self._banned = tuple(
            (one[:-1], one[-1]) for one in sampling.bad_token_ids if one[-1] < vocab_size
        )
        self._longest = max((len(before) for before, _ in self._banned), default=0)
        self._tail: tuple[int, ...] = ()
        self.advance(start.token_ids[start.num_prompt_tokens :])

    def masks(self, drafts: Sequence[int]) -> np.ndarray:
        """int32 [1 + drafts, words]: what may follow the sequence, and each draft in turn."""
        rows = [self._mask((*self._tail, *drafts[:count])) for count in range(1 + len(drafts))]
        return np.stack(rows)

    def advance(self, token_ids: Sequence[int]) -> None:
        """Tokens were drawn for good. What a prompt holds begins no bad word."""
        if self._longest:
            self._tail = (*self._tail, *token_ids)[-self._longest :]

    def _mask(self, tail: tuple[int, ...]) -> np.ndarray:
        mask = self._allowed.copy()
        for before, last in self._banned:
            if not before or tail[-len(before) :] == before:
                mask[last >> 5] &= ~_bit(last)
        return mask


def _bit(token: int) -> np.int32:
    return np.uint32(1 << (token & 31)).view(np.int32)


def _packed(vocab_size: int, allowed: Sequence[int] | None) -> np.ndarray:
    """int32 [words]: a bit for every token that is allowed, which without a list are all."""
    bits = np.zeros(-(-vocab_size // 32) * 32, dtype=np.uint8)
    bits[:vocab_size] = allowed is None
    if allowed is not None:
        bits[[token for token in allowed if token < vocab_size]] = 1
    return np.packbits(bits, bitorder="little").view(np.int32)
