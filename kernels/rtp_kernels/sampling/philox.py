"""Philox4x32-10 (Salmon et al. 2011) and Gumbel noise from it, vectorised over counters."""

from __future__ import annotations

import numpy as np

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_MASK = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_ROUNDS = 10
_LARGEST = np.float32(1 - 2**-24)


def philox4x32(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """counter uint32-valued uint64 [4, n], key two u32 -> uint64 [4, n] of 32-bit words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (
            (p1 >> _SHIFT) ^ c1 ^ np.uint64(k0),
            p1 & _MASK,
            (p0 >> _SHIFT) ^ c3 ^ np.uint64(k1),
            p0 & _MASK,
        )
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return np.stack((c0, c1, c2, c3))


def gumbel(seed: int, position: int, choice: int, token_ids: np.ndarray) -> np.ndarray:
    """float32 Gumbel noise for ascending `token_ids` (int64 [n]) of one draw.

    Counter (token_id >> 2, position, choice, 0), lane token_id & 3,
    u = (x >> 8 + 0.5) * 2^-24, at most 1 - 2^-24 (float32 rounds the last one to 1), so that
    u lies strictly inside (0, 1) and the noise in [-2.9, 16.7].
    """
    groups = token_ids >> 2
    first = np.ones(len(groups), dtype=bool)
    np.not_equal(groups[1:], groups[:-1], out=first[1:])
    place = np.cumsum(first) - 1
    counter = np.zeros((4, int(first.sum())), dtype=np.uint64)
    counter[0] = groups[first].astype(np.uint64)
    counter[1] = np.uint64(position & 0xFFFFFFFF)
    counter[2] = np.uint64(choice)
    words = philox4x32(counter, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))
    bits = words[token_ids & 3, place]
    uniform = ((bits >> np.uint64(8)).astype(np.float32) + np.float32(0.5)) * np.float32(2**-24)
    return -np.log(-np.log(np.minimum(uniform, _LARGEST)))
