"""Linear layers for few rows over torch's 4-bit CPU product, dense for many.

torch packs weights as w = (q - 8) * s + z in groups of 32, so codes of 4 bits fit without a new
rounding: s = scale, z = minimum + 8 * scale. Codes of 8 bits are two such products, of the high
and the low half of each code, added in float32. The operators are private to torch: `usable`
tries them once, and whoever finds them wrong or missing multiplies densely.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch.nn import functional

from rtp_kernels.linear_weight import GROUP, GroupCodes, quantize

Part = tuple[torch.Tensor, torch.Tensor]
ROW_COUNTS = (1, 2, 4, 8, 16, 32)
OUTPUTS = 16
_TRIES = 2


class FewRowsLinear:
    """A linear layer that reads codes up to `max_rows` rows. bfloat16."""

    __slots__ = ("dense", "max_rows", "parts")

    def __init__(self, dense: torch.Tensor, parts: tuple[Part, ...], max_rows: int) -> None:
        self.dense = dense
        self.parts = parts
        self.max_rows = max_rows

    def __call__(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """x bfloat16 [rows, in] -> [rows, out]."""
        if x.shape[0] > self.max_rows:
            return functional.linear(x, self.dense, bias)
        out = product(x, self.parts)
        return out if bias is None else out.add_(bias)


def product(x: torch.Tensor, parts: tuple[Part, ...]) -> torch.Tensor:
    """x bfloat16 [rows, in] times packed codes -> bfloat16 [rows, out]."""
    multiply = torch.ops.aten._weight_int4pack_mm_for_cpu
    if len(parts) == 1:
        return multiply(x, parts[0][0], GROUP, parts[0][1])
    total = multiply(x, parts[0][0], GROUP, parts[0][1]).float()
    for packed, scales in parts[1:]:
        total += multiply(x, packed, GROUP, scales)
    return total.to(x.dtype)


def pack(codes: GroupCodes) -> tuple[Part, ...]:
    """Codes in torch's layout, which depends on the processor: never stored."""
    scale, minimum = codes.scale.float(), codes.minimum.float()
    if codes.bits == 4:
        return (_part(codes.q, scale, minimum + 8 * scale),)
    high = _part(codes.q >> 4, 16 * scale, minimum + 128 * scale)
    return high, _part(codes.q & 15, scale, 8 * scale)


def _part(q: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> Part:
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(q.int(), 1)
    scales = torch.stack((scale, zero), dim=-1).transpose(0, 1).to(torch.bfloat16)
    return packed, scales.contiguous()


@lru_cache(maxsize=1)
def usable() -> str | None:
    """Why the operators cannot be used here, or None. Tried once a process."""
    x = torch.linspace(-1, 1, 3 * 64, dtype=torch.float32).view(3, 64).bfloat16()
    weight = torch.sin(torch.arange(64 * 64, dtype=torch.float32)).view(64, 64)
    try:
        for bits in (4, 8):
            codes = quantize(weight, bits)
            found, wanted = product(x, pack(codes)).float(), x.float() @ codes.dense().T
            if not torch.allclose(found, wanted, atol=0.05, rtol=0.05):
                return f"torch's 4-bit product is wrong for {bits}-bit codes on this processor"
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        return f"torch has no 4-bit product here: {str(error).splitlines()[0]}"
    return None


def crossover(
    coded: Sequence[Callable[[torch.Tensor], torch.Tensor]],
    dense: Sequence[torch.Tensor],
    counts: Sequence[int] = ROW_COUNTS,
) -> int:
    """Most rows, of `counts`, for which products by codes are measured to be faster; 0 if for
    none.

    Takes several weights of one shape in turn, so that caches do not hold them all.
    """
    best = 0
    for rows in counts:
        x = dense[0].new_ones(rows, dense[0].shape[1])
        few = _seconds([partial(product, x) for product in coded])
        if few >= _seconds([partial(functional.linear, x, weight) for weight in dense]):
            return best
        best = rows
    return best


def _seconds(calls: Sequence[Callable[[], Any]]) -> float:
    best = float("inf")
    for _ in range(_TRIES):
        began = time.perf_counter()
        for call in calls:
            call()
        best = min(best, time.perf_counter() - began)
    return best
