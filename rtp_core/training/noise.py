"""The sampler's Gumbel noise for many positions at once, in torch on any device."""

from __future__ import annotations

import torch

from rtp_core.api import Noise

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF
_ROUNDS = 10
_LARGEST = 1 - 2**-24


def noise_of(seed: int) -> Noise:
    """The noise of a request's first choice; `rtp_kernels.sampling.philox` defines it."""

    def noise(positions: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
        groups, place = torch.unique_consecutive(token_ids >> 2, return_inverse=True)
        words = _philox(groups[None], positions[:, None], seed)
        bits = words[token_ids & 3, :, place].T
        uniform = ((bits >> 8).float() + 0.5) * 2**-24
        return -torch.log(-torch.log(uniform.clamp_max(_LARGEST)))

    return noise


def _philox(groups: torch.Tensor, positions: torch.Tensor, seed: int) -> torch.Tensor:
    """int64 [4, rows, groups] of 32-bit words: Philox4x32-10 (Salmon et al. 2011)."""
    zero = torch.zeros_like(groups + positions)
    counter = (groups + zero, (positions + zero) & _WORD, zero, zero)
    key0, key1 = seed & _WORD, (seed >> 32) & _WORD
    for _ in range(_ROUNDS):
        c0, c1, c2, c3 = counter
        low0, high0 = _product(c0, _MULTIPLIERS[0])
        low1, high1 = _product(c2, _MULTIPLIERS[1])
        counter = (high1 ^ c1 ^ key0, low1, high0 ^ c3 ^ key1, low0)
        key0, key1 = (key0 + _KEY_STEPS[0]) & _WORD, (key1 + _KEY_STEPS[1]) & _WORD
    return torch.stack(counter)


def _product(word: torch.Tensor, factor: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Low and high 32 bits; int64 wraps, and the mask takes the sign away."""
    product = word * factor
    return product & _WORD, (product >> 32) & _WORD
