"""Safetensors headers, read with every check that keeps bad bytes out of the model.

Format: u64 little-endian header length n, n bytes of JSON, then the tensors' bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtp_core.api import TensorInfo
from rtp_core.errors import WeightLoadError
from rtp_core.loading.foreign import START_BYTES, refuse_foreign
from rtp_core.loading.json_object import parse_object
from rtp_core.loading.objects.stand_in import file_bytes

MAX_HEADER_BYTES = 100_000_000
MAX_DIMENSIONS = 64
DTYPE_BITS: Mapping[str, int] = {
    "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16,
    "I16": 16, "U16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I8": 8, "U8": 8, "BOOL": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Tensors of one file by name. Raises WeightLoadError naming file and tensor."""
    length, header = _read(path)
    tensors = [
        _tensor(path, name, entry, 8 + length)
        for name, entry in header.items()
        if name != "__metadata__"
    ]
    _check_ranges(path, tensors, 8 + length, file_bytes(path))
    return {tensor.name: tensor for tensor in tensors}


def read_metadata(path: Path) -> Mapping[str, Any]:
    """What the file says of itself beside its tensors; {} if nothing."""
    found = _read(path)[1].get("__metadata__")
    return found if isinstance(found, dict) else {}


def _read(path: Path) -> tuple[int, dict[str, Any]]:
    """Length of the header and its object."""
    size = file_bytes(path)
    with path.open("rb") as file:
        start = file.read(START_BYTES)
        refuse_foreign(path, start)
        if len(start) < 8:
            raise _broken(path, "truncated or not safetensors: no header length")
        (length,) = struct.unpack_from("<Q", start)
        if length > MAX_HEADER_BYTES or 8 + length > size:
            raise _broken(
                path, f"truncated or not safetensors: header of {length} bytes, file of {size}"
            )
        file.seek(8)
        return length, parse_object(path, file.read(length), unique=True)


def _tensor(path: Path, name: str, entry: Any, data_start: int) -> TensorInfo:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(path, "entry lacks dtype, shape or data_offsets", tensor=name) from error
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise _broken(path, f"unknown dtype {dtype!r}", tensor=name)
    if not isinstance(shape, list) or not all(map(_natural, [begin, end, *shape])) or begin > end:
        raise _broken(path, "shape or offsets are not natural numbers in order", tensor=name)
    if len(shape) > MAX_DIMENSIONS:
        raise _broken(path, f"{len(shape)} dimensions, at most {MAX_DIMENSIONS}", tensor=name)
    num_bits = math.prod(shape) * DTYPE_BITS[dtype]
    if num_bits != 8 * (end - begin):
        wanted = f"{num_bits} bits" if num_bits % 8 else f"{num_bits // 8} bytes"
        message = f"shape {shape} of {dtype} is {wanted}, offsets say {end - begin} bytes"
        raise _broken(path, message, tensor=name)
    return TensorInfo(name, str(path), data_start + begin, end - begin, tuple(shape), dtype)


def _natural(value: Any) -> bool:
    """An int that a u64 holds; JSON's true is an int to Python, not to us."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64


def _check_ranges(path: Path, tensors: list[TensorInfo], start: int, size: int) -> None:
    at = start
    for tensor in sorted(tensors, key=lambda one: (one.offset, one.num_bytes)):
        if tensor.offset != at:
            kind = "overlap" if tensor.offset < at else "hole"
            raise _broken(path, f"{kind} at byte {min(at, tensor.offset)}", tensor=tensor.name)
        at += tensor.num_bytes
    if at > size:
        raise _broken(path, f"truncated by {at - size} bytes", "download the file again")
    if at < size:
        raise _broken(path, f"{size - at} bytes follow the last tensor")


def _broken(
    path: Path, message: str, remedy: str | None = None, *, tensor: str = ""
) -> WeightLoadError:
    return WeightLoadError(message, file=str(path), tensor=tensor, remedy=remedy)
