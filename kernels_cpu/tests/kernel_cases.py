"""Random weights and comparisons."""

from __future__ import annotations

import torch

from rtp_kernels.linear_weight import GroupCodes
from rtp_kernels_cpu.weights import PackedWeight, borrow, pack

KINDS = ("q4_0", "q4_1", "q8_0", "q8_1")
ALL_KINDS = (*KINDS, "bf16")


def random_codes(rows: int, columns: int, kind: str, seed: int = 0) -> GroupCodes:
    """Any codes; scales and minima of realistic size, some of them subnormal or zero."""
    generator = torch.Generator().manual_seed(seed)
    bits = int(kind[1])
    q = torch.randint(0, 2**bits, (rows, columns), generator=generator, dtype=torch.uint8)
    groups = (rows, columns // 32)
    scale = (torch.randn(groups, generator=generator) * 0.02).half()
    scale[torch.rand(groups, generator=generator) < 0.05] = 3e-6
    scale[torch.rand(groups, generator=generator) < 0.05] = 0.0
    if kind.endswith("0"):
        return GroupCodes(bits, q, scale, scale * -(2 ** (bits - 1)))
    return GroupCodes(bits, q, scale, (torch.randn(groups, generator=generator) * 0.1).half())


def random_weight(rows: int, columns: int, kind: str, parts: int = 1) -> PackedWeight:
    """Of one of `KINDS`, or bfloat16."""
    if kind == "bf16":
        return borrow(random_rows(rows, columns, seed=5) * columns**-0.5, parts)
    return pack(random_codes(rows, columns, kind), parts)


def random_rows(*shape: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).bfloat16()


def assert_close(actual: torch.Tensor, wanted: torch.Tensor) -> None:
    """Equal but for rounding. Where the norm rounds otherwise, a code may differ by one,
    which is worth a 250th of the largest product of its group."""
    assert actual.dtype == wanted.dtype
    assert actual.shape == wanted.shape
    a, b = actual.double(), wanted.double()
    bound = 2e-3 if actual.dtype == torch.float32 else 6e-3
    assert (a - b).norm() <= bound * b.norm() + 1e-6
    worst = (a - b).abs().max() if a.numel() else torch.tensor(0.0)
    assert worst <= 0.02 * b.abs().max() + 1e-6
