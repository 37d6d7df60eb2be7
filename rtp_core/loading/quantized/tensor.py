"""Tensors that a checkpoint stores in several parts: codes, scales, zero points, group numbers.

A loader moves each part like any tensor; the sink puts the parts together again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from rtp_core.api import Placement, TensorInfo
from rtp_kernels.linear_weight import GroupCodes

CODES, SCALES, ZEROS, INDEX = "codes", "scales", "zeros", "index"
"""Names of parts. Codes are most of the bytes; the others come to a fraction of them."""
Parts = Mapping[str, torch.Tensor]
"""By name, in the file's dtype and shape."""

TORCH_DTYPES: Mapping[str, torch.dtype] = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "I8": torch.int8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E8M0": torch.float8_e8m0fnu,
}
"""dtypes that a part may have."""


class Unpacked(Protocol):
    """One weight as numbers that can be computed with."""

    def write(self, out: torch.Tensor) -> None:
        """Fill contiguous `out` [rows, columns] with the weights, in its dtype."""
        ...

    def write_codes(self, out: GroupCodes) -> bool:
        """Fill `out` with the same weights as group codes; False if they do not fit in."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedTensor(TensorInfo):
    """A weight [rows, columns] in parts; `dtype` says for people how it is stored.

    `unpack` raises ValueError for parts that contradict themselves. `code_bits` is the width
    of group codes that can hold the weight as it is, None if its kind cannot be held so.
    """

    parts: Mapping[str, TensorInfo]
    unpack: Callable[[Parts], Unpacked]
    code_bits: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartPlacement(Placement):
    """`tensor` is the part named `part` of `whole`, whose rows the rule places."""

    part: str
    whole: QuantizedTensor


@dataclass(frozen=True, slots=True)
class Quantization:
    """What became of a `quantization_config`.

    `method` is its quant_method, `kinds` how the weights are stored, with their number, and
    `skipped` what was left aside, with its number.
    """

    method: str
    kinds: Mapping[str, int]
    skipped: Mapping[str, int]

    @property
    def summary(self) -> str:
        """``awq: 224 x int4, groups of 128``."""
        return f"{self.method}: {_counted(self.kinds) or 'no quantized weight'}"

    @property
    def notes(self) -> str:
        """What was skipped, or nothing."""
        return _counted(self.skipped)


def typed(raw: torch.Tensor, info: TensorInfo) -> torch.Tensor:
    """The bytes `raw` (uint8, one dimension) as the tensor they are."""
    return raw.view(TORCH_DTYPES[info.dtype]).view(info.shape)


def _counted(numbers: Mapping[str, int]) -> str:
    return "; ".join(f"{count} x {name}" for name, count in sorted(numbers.items()))
