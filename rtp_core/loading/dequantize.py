"""File dtypes to float tensors, where the bytes are.

Block layouts are GGUF's: Q*_0 and Q*_1 hold 32 weights a block, w = d * q or d * q + m, low
nibbles first; K-quants are in `k_quants`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from rtp_core.loading.k_quants import K_BLOCKS, half

_PLAIN: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
_CHUNK_WEIGHTS = 2**15 - 2**8
"""Weights in work at a time: they stay in a core's cache, and are too few for torch to spread
over its own threads, which the loaders' threads and busy cores would only hold up."""
_DEVICE_WEIGHTS = 2**24


def weights_at_once(device: torch.device) -> int:
    """Weights in work at a time; a device wants few and large operations."""
    return _CHUNK_WEIGHTS if device.type == "cpu" else _DEVICE_WEIGHTS


def stored_dtype(dtype: str) -> torch.dtype | None:
    """Torch's name of a file's dtype; None for blocks."""
    return _PLAIN.get(dtype)


def decode_into(data: torch.Tensor, dtype: str, out: torch.Tensor) -> None:
    """Fill contiguous `out` with the weights whose bytes are `data` (uint8, one dimension).

    `dtype` is one of DECODABLE; the caller has checked that sizes agree.
    """
    if dtype in _PLAIN:
        _convert(data.view(_PLAIN[dtype]), out.view(-1))
    else:
        num_weights, num_bytes, unpack = _BLOCKS[dtype]
        _unpack(data.view(-1, num_bytes), out.view(-1, num_weights), unpack)


def _convert(source: torch.Tensor, out: torch.Tensor) -> None:
    step = weights_at_once(out.device)
    for begin in range(0, len(out), step):
        out[begin : begin + step] = source[begin : begin + step]


def _unpack(
    blocks: torch.Tensor,
    out: torch.Tensor,
    unpack: Callable[[torch.Tensor, torch.Tensor], None],
) -> None:
    step = weights_at_once(out.device) // out.shape[1]
    scratch = torch.empty(min(step, len(blocks)), out.shape[1], device=out.device)
    for begin in range(0, len(blocks), step):
        part = blocks[begin : begin + step]
        weights = scratch[: len(part)]
        unpack(part, weights)
        out[begin : begin + step] = weights


def _nibbles(packed: torch.Tensor, out: torch.Tensor) -> None:
    """[blocks, 16] bytes -> [blocks, 32] values, low nibbles first."""
    out[:, :16] = packed & 15
    out[:, 16:] = packed >> 4


def _add_fifth_bits(blocks: torch.Tensor, at: int, out: torch.Tensor) -> None:
    """Bit 4 of each weight, from the u32 at byte `at`."""
    shifts = torch.arange(8, dtype=torch.uint8)
    bits = (blocks[:, at : at + 4, None] >> shifts) & 1
    out.add_(bits.flatten(1), alpha=16)


def _q4_0(blocks: torch.Tensor, out: torch.Tensor) -> None:
    _nibbles(blocks[:, 2:], out)
    out.sub_(8).mul_(half(blocks, 0))


def _q4_1(blocks: torch.Tensor, out: torch.Tensor) -> None:
    _nibbles(blocks[:, 4:], out)
    out.mul_(half(blocks, 0)).add_(half(blocks, 2))


def _q5_0(blocks: torch.Tensor, out: torch.Tensor) -> None:
    _nibbles(blocks[:, 6:], out)
    _add_fifth_bits(blocks, 2, out)
    out.sub_(16).mul_(half(blocks, 0))


def _q5_1(blocks: torch.Tensor, out: torch.Tensor) -> None:
    _nibbles(blocks[:, 8:], out)
    _add_fifth_bits(blocks, 4, out)
    out.mul_(half(blocks, 0)).add_(half(blocks, 2))


def _q8_0(blocks: torch.Tensor, out: torch.Tensor) -> None:
    out.copy_(blocks[:, 2:].view(torch.int8))
    out.mul_(half(blocks, 0))


_BLOCKS: Mapping[str, tuple[int, int, Callable[[torch.Tensor, torch.Tensor], None]]] = {
    "Q4_0": (32, 18, _q4_0),
    "Q4_1": (32, 20, _q4_1),
    "Q5_0": (32, 22, _q5_0),
    "Q5_1": (32, 24, _q5_1),
    "Q8_0": (32, 34, _q8_0),
    **K_BLOCKS,
}


def block_weights(dtype: str) -> int:
    """Weights that are stored together, neighbours in a row; 1 for plain dtypes."""
    return 1 if dtype in _PLAIN else _BLOCKS[dtype][0]


DECODABLE = frozenset(_PLAIN) | frozenset(_BLOCKS)
"""dtypes that can be loaded."""
