"""compressed-tensors: e4m3 and int8 weights as they are, integers packed into int32.

`weight` (e4m3 or int8) or `weight_packed` (int32 [out, in * bits / 32], two's complement shifted
to start at 0, lowest bits first) with `weight_shape` [2]; `weight_scale` a tensor, row, group or
block; `weight_zero_point`, int8 or packed along the rows, where a scheme is asymmetric;
`weight_g_idx` where groups are out of order.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from rtp_core.api import TensorInfo
from rtp_core.loading.quantized.fp8 import E4M3, scaled
from rtp_core.loading.quantized.integers import IntegerGroups, code_bits, grouped, unpack_words
from rtp_core.loading.quantized.schemes import Scheme, Schemes
from rtp_core.loading.quantized.stored import (
    FLOATS,
    Kind,
    Stored,
    broken,
    check,
    matrix,
    num_groups,
)
from rtp_core.loading.quantized.tensor import CODES, INDEX, SCALES, ZEROS, Parts
from rtp_core.loading.small_reads import read_pairs

_PLAIN = (E4M3, "I8")


def read(settings: Mapping[str, Any], stored: Stored) -> None:
    """Every module with packed or 8-bit weights. Raises ModelError or WeightLoadError."""
    schemes = Schemes(settings)
    packed = list(stored.modules("weight_packed"))
    shapes = [check(stored.take(f"{one}.weight_shape"), ("I64", "I32"), (2,)) for one in packed]
    for module, shape in zip(packed, read_pairs(shapes), strict=True):
        _packed(stored, module, schemes.of(module), shape)
    for module in stored.modules("weight"):
        dtype = stored.tensors[f"{module}.weight"].dtype
        if dtype in _PLAIN:
            scheme = schemes.of(module)
            (_float if dtype == E4M3 else _int8)(stored, module, scheme)


def _float(stored: Stored, module: str, scheme: Scheme) -> None:
    codes = stored.take(f"{module}.weight")
    if scheme.kind != "float":
        raise broken(codes, f"dtype {codes.dtype}, expected I8: its scheme is {_words(scheme)}")
    rows, columns = matrix(codes, (E4M3,))
    num_groups(codes, columns, scheme.group_size)
    block = {
        "tensor": (rows, columns),
        "channel": (1, columns),
        "group": (1, scheme.group_size or columns),
        "block": scheme.block or (rows, columns),
    }[scheme.strategy]
    scaled(stored, module, codes, stored.take(f"{module}.weight_scale"), block)


def _int8(stored: Stored, module: str, scheme: Scheme) -> None:
    codes = stored.take(f"{module}.weight")
    if (scheme.kind, scheme.bits) != ("int", 8):
        raise broken(codes, f"dtype I8, but its scheme is {_words(scheme)}")
    _integers(stored, module, scheme, codes, matrix(codes, ("I8",)))


def _packed(stored: Stored, module: str, scheme: Scheme, shape: tuple[int, int]) -> None:
    codes = stored.take(f"{module}.weight_packed")
    if scheme.kind != "int":
        raise broken(codes, f"packed integers, but its scheme is {_words(scheme)}")
    rows, words = matrix(codes, ("I32",))
    if shape[0] != rows or shape[1] < 1 or -(-shape[1] * scheme.bits // 32) != words:
        raise broken(
            codes,
            f"weight_shape says {list(shape)}, which is not the shape of "
            f"{list(codes.shape)} words of {scheme.bits} bits",
        )
    _integers(stored, module, scheme, codes, shape)


def _integers(
    stored: Stored, module: str, scheme: Scheme, codes: TensorInfo, shape: tuple[int, int]
) -> None:
    rows, columns = shape
    groups = num_groups(codes, columns, scheme.group_size)
    flat: list[tuple[int, ...]] = [(rows,)] if groups == 1 else []
    if scheme.strategy == "tensor":
        wide, flat = (1, 1), [(), (1,)]
    else:
        wide = (rows, groups)
    scales = check(stored.take(f"{module}.weight_scale"), FLOATS, wide, *flat)
    parts = {CODES: codes, SCALES: scales}
    zeros = stored.find(f"{module}.weight_zero_point")
    if zeros is not None:
        if zeros.dtype == "I32":
            wide, flat = (-(-wide[0] * scheme.bits // 32), wide[1]), []
        parts[ZEROS] = check(zeros, ("I8", "I32"), wide, *flat)
    elif not scheme.symmetric:
        stored.take(f"{module}.weight_zero_point")  # says that it is missing
    if index := stored.find(f"{module}.weight_g_idx"):
        parts[INDEX] = check(index, ("I32",), (columns,))
    order = "" if index is None else " in an order of their own"
    width = code_bits(scheme.bits, columns, groups)
    read_parts = partial(unpack, bits=scheme.bits, shape=shape)
    stored.put(module, shape, parts, Kind(_words(scheme) + order, read_parts, width))


def unpack(parts: Parts, *, bits: int, shape: tuple[int, int]) -> IntegerGroups:
    """The weight [out, in]. Raises ValueError when the index names groups that there are not."""
    centre, scale = 2 ** (bits - 1), parts[SCALES]
    zero = centre
    if ZEROS in parts:
        zero = _zeros(parts[ZEROS], bits, shape[0] if scale.numel() > 1 else 1)
    codes = parts[CODES]
    q = _shifted(codes, centre) if codes.dtype == torch.int8 else unpack_words(codes, bits)
    return grouped(q[:, : shape[1]].contiguous(), scale, zero, parts.get(INDEX))


def _zeros(zeros: torch.Tensor, bits: int, rows: int) -> torch.Tensor:
    """float32 [rows, groups], or as many in another shape."""
    if zeros.dtype == torch.int8:
        return zeros.float() + 2 ** (bits - 1)
    return unpack_words(zeros.T, bits).T[:rows].float()


def _shifted(codes: torch.Tensor, centre: int) -> torch.Tensor:
    """int8 -> uint8 that starts at 0."""
    return codes.view(torch.uint8) ^ centre


def _words(scheme: Scheme) -> str:
    width = f"{'float8_e4m3' if scheme.kind == 'float' else f'int{scheme.bits}'}"
    shared = {
        "tensor": "a scale a tensor",
        "channel": "a scale a row",
        "group": f"groups of {scheme.group_size}",
        "block": "blocks",
    }
    return f"{width}, {shared[scheme.strategy]}"
