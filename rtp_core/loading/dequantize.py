"""File dtypes to float tensors, on the CPU.

Block layouts are GGUF's: 32 weights a block for the Q*_0, Q*_1 types (w = d * q or
d * q + m, low nibbles first), 256 for K-quants, which the `gguf` package decodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

_PLAIN: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
PLAIN_DTYPES = frozenset(_PLAIN)


def decode(data: memoryview, dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Tensor of `shape`: a view of `data` for plain dtypes, new float32 for quantized ones.

    Raises LookupError for a dtype that is not implemented.
    """
    if dtype in _PLAIN:
        return torch.frombuffer(data, dtype=_PLAIN[dtype]).view(shape)
    if dtype in _BLOCKS:
        num_bytes, unpack = _BLOCKS[dtype]
        blocks = torch.frombuffer(data, dtype=torch.uint8).view(-1, num_bytes)
        return unpack(blocks).view(shape)
    if dtype.endswith("_K"):
        return _k_quant(data, dtype).view(shape)
    raise LookupError(dtype)


def _half(blocks: torch.Tensor, at: int) -> torch.Tensor:
    """The float16 at byte `at` of each block, as float32 [blocks, 1]."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: torch.Tensor) -> torch.Tensor:
    """[blocks, 16] bytes -> [blocks, 32] values, low nibbles first."""
    return torch.cat((packed & 15, packed >> 4), dim=1)


def _fifth_bits(blocks: torch.Tensor, at: int) -> torch.Tensor:
    """Bit 4 of each weight, from the u32 at byte `at`: [blocks, 32] of 0 or 16."""
    spread = blocks[:, at : at + 4].repeat_interleave(8, dim=1)
    shifts = torch.arange(8, dtype=torch.uint8).repeat(4)
    return ((spread >> shifts) & 1) << 4


def _q4_0(blocks: torch.Tensor) -> torch.Tensor:
    return (_nibbles(blocks[:, 2:]).float() - 8) * _half(blocks, 0)


def _q4_1(blocks: torch.Tensor) -> torch.Tensor:
    return _nibbles(blocks[:, 4:]).float().mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def _q5_0(blocks: torch.Tensor) -> torch.Tensor:
    codes = _nibbles(blocks[:, 6:]) | _fifth_bits(blocks, 2)
    return (codes.float() - 16) * _half(blocks, 0)


def _q5_1(blocks: torch.Tensor) -> torch.Tensor:
    codes = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks, 4)
    return codes.float().mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def _q8_0(blocks: torch.Tensor) -> torch.Tensor:
    return blocks[:, 2:].view(torch.int8).float().mul_(_half(blocks, 0))


_BLOCKS: Mapping[str, tuple[int, Callable[[torch.Tensor], torch.Tensor]]] = {
    "Q4_0": (18, _q4_0),
    "Q4_1": (20, _q4_1),
    "Q5_0": (22, _q5_0),
    "Q5_1": (24, _q5_1),
    "Q8_0": (34, _q8_0),
}


def _k_quant(data: memoryview, dtype: str) -> torch.Tensor:
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    kind = GGMLQuantizationType[dtype]
    return torch.from_numpy(dequantize(np.frombuffer(data, dtype=np.uint8), kind))
