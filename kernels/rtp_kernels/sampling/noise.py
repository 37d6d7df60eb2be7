"""Gumbel noise on the device: the numbers of `philox.gumbel`, for a block of tokens at a time."""

# ruff: noqa: ANN001, ANN201 - device code
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportOperatorIssue=false

from __future__ import annotations

import triton
from triton import language as tl
from triton.language.random import philox_impl


@triton.jit
def from_bits(words):
    """float32 Gumbel noise of uint32 words: u = (x >> 8 + 0.5) * 2^-24, below 1 by 2^-24."""
    uniform = ((words >> 8).to(tl.float32) + 0.5) * 5.9604644775390625e-08
    return -tl.log(-tl.log(tl.minimum(uniform, 0.999999940395355224609375)))


@triton.jit
def of_tile(first_token, seed_low, seed_high, choice, position, TILE: tl.constexpr):
    """float32 [TILE]: noise of consecutive tokens, the first a multiple of four.

    One call of the generator serves four tokens, and they land in the thread that holds their
    four logits.
    """
    counter = (first_token // 4 + tl.arange(0, TILE // 4)).to(tl.uint32)
    word0, word1, word2, word3 = philox_impl(
        counter, position, choice, seed_low * 0, seed_low, seed_high
    )
    words = tl.join(tl.join(word0, word2), tl.join(word1, word3))
    return tl.reshape(from_bits(words), [TILE])


@triton.jit
def of_tokens(ids, seed_low, seed_high, choice, position):
    """float32 like `ids`: noise of any tokens, one call of the generator each."""
    counter = (ids >> 2).to(tl.uint32)
    word0, word1, word2, word3 = philox_impl(
        counter, position, choice, seed_low * 0, seed_low, seed_high
    )
    lane = ids & 3
    low = tl.where(lane == 0, word0, word1)
    high = tl.where(lane == 2, word2, word3)
    return from_bits(tl.where(lane < 2, low, high))
