"""GGUF's K-quants: 256 weights a block, in groups of 16 or 32 with scales of their own.

w = (d * scale) * q - (dmin * min), or (d * scale) * q for the symmetric Q3_K and Q6_K.
Every function fills `out` float32 [blocks, 256] from `blocks` uint8 [blocks, bytes].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch


def half(blocks: torch.Tensor, at: int) -> torch.Tensor:
    """The float16 at byte `at` of each block, as float32 [blocks, 1]."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


def _shifts(count: int, step: int) -> torch.Tensor:
    """uint8 [count, 1]: 0, step, 2 * step …"""
    return torch.arange(0, count * step, step, dtype=torch.uint8)[:, None]


def _two_bits(packed: torch.Tensor) -> torch.Tensor:
    """[blocks, 64] bytes -> [blocks, 256]: of each 32 bytes, all lowest pairs first."""
    halves = packed.unflatten(1, (2, 1, 32))
    return ((halves >> _shifts(4, 2)) & 3).flatten(1)


def _one_bit(packed: torch.Tensor) -> torch.Tensor:
    """[blocks, 32] bytes -> [blocks, 256]: all lowest bits first."""
    return ((packed[:, None] >> _shifts(8, 1)) & 1).flatten(1)


def _nibble_groups(packed: torch.Tensor, out: torch.Tensor) -> None:
    """[blocks, 128] bytes: of each 32 bytes, the low nibbles, then the high ones."""
    groups, packed = out.unflatten(1, (4, 2, 32)), packed.unflatten(1, (4, 32))
    groups[:, :, 0] = packed & 15
    groups[:, :, 1] = packed >> 4


def _six_bit_pairs(packed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[blocks, 12] bytes -> eight scales and eight minima of six bits, [blocks, 8, 1] each."""
    low, high, rest = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = torch.cat((low & 63, (rest & 15) | ((low >> 6) << 4)), dim=1)
    minima = torch.cat((high & 63, (rest >> 4) | ((high >> 6) << 4)), dim=1)
    return scales[:, :, None].float(), minima[:, :, None].float()


def _q2_k(blocks: torch.Tensor, out: torch.Tensor) -> None:
    scales = blocks[:, :16, None]
    out.copy_(_two_bits(blocks[:, 16:80]))
    d, dmin = half(blocks, 80)[:, None], half(blocks, 82)[:, None]
    out.unflatten(1, (16, 16)).mul_(d * (scales & 15)).sub_(dmin * (scales >> 4))


def _q3_k(blocks: torch.Tensor, out: torch.Tensor) -> None:
    packed = blocks[:, 96:108]
    low = torch.cat((packed[:, :8] & 15, packed[:, :8] >> 4), dim=1)
    high = ((packed[:, None, 8:] >> _shifts(4, 2)) & 3).flatten(1)
    scales = (low | (high << 4)).float() - 32
    out.copy_(_two_bits(blocks[:, 32:96])).add_(_one_bit(blocks[:, :32]), alpha=4).sub_(4)
    out.unflatten(1, (16, 16)).mul_((half(blocks, 108) * scales)[:, :, None])


def _q4_k(blocks: torch.Tensor, out: torch.Tensor) -> None:
    _nibble_groups(blocks[:, 16:], out)
    _scale_and_shift(blocks, out)


def _q5_k(blocks: torch.Tensor, out: torch.Tensor) -> None:
    _nibble_groups(blocks[:, 48:], out)
    out.add_(_one_bit(blocks[:, 16:48]), alpha=16)
    _scale_and_shift(blocks, out)


def _scale_and_shift(blocks: torch.Tensor, out: torch.Tensor) -> None:
    """Q4_K and Q5_K start alike: d, dmin, then the packed scales and minima."""
    scales, minima = _six_bit_pairs(blocks[:, 4:16])
    d, dmin = half(blocks, 0)[:, None], half(blocks, 2)[:, None]
    out.unflatten(1, (8, 32)).mul_(d * scales).sub_(dmin * minima)


def _q6_k(blocks: torch.Tensor, out: torch.Tensor) -> None:
    low = blocks[:, :128].unflatten(1, (2, 64))
    halves = out.unflatten(1, (2, 2, 64))
    halves[:, :, 0] = low & 15
    halves[:, :, 1] = low >> 4
    out.add_(_two_bits(blocks[:, 128:192]), alpha=16).sub_(32)
    scales = blocks[:, 192:208].view(torch.int8).float()
    out.unflatten(1, (16, 16)).mul_((half(blocks, 208) * scales)[:, :, None])


K_BLOCKS: Mapping[str, tuple[int, int, Callable[[torch.Tensor, torch.Tensor], None]]] = {
    "Q2_K": (256, 84, _q2_k),
    "Q3_K": (256, 110, _q3_k),
    "Q4_K": (256, 144, _q4_k),
    "Q5_K": (256, 176, _q5_k),
    "Q6_K": (256, 210, _q6_k),
}
"""dtype -> weights a block, bytes a block, decoder."""
