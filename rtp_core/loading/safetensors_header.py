"""Safetensors headers, read with every check that keeps bad bytes out of the model.

Format: u64 little-endian header length n, n bytes of JSON, then the tensors' bytes.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtp_core.api import TensorInfo
from rtp_core.errors import WeightLoadError

MAX_HEADER_BYTES = 100_000_000
DTYPE_BITS: Mapping[str, int] = {
    "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16,
    "I16": 16, "U16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I8": 8, "U8": 8, "BOOL": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Tensors of one file by name. Raises WeightLoadError naming file and tensor."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        _refuse_foreign(path, start + file.read(120))
        if len(start) < 8:
            raise _broken(path, "truncated or not safetensors: no header length")
        (length,) = struct.unpack("<Q", start)
        if length > MAX_HEADER_BYTES or 8 + length > size:
            raise _broken(
                path, f"truncated or not safetensors: header of {length} bytes, file of {size}"
            )
        file.seek(8)
        header = _parse(path, file.read(length))
    tensors = [
        _tensor(path, name, entry, 8 + length)
        for name, entry in header.items()
        if name != "__metadata__"
    ]
    _check_ranges(path, tensors, 8 + length, size)
    return {tensor.name: tensor for tensor in tensors}


def _refuse_foreign(path: Path, start: bytes) -> None:
    if start.startswith(b"version https://git-lfs"):
        raise _broken(path, "this is a Git LFS pointer, not the file", "run git lfs pull")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise _broken(path, "this is an HTML page, not the file", "download it again")


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = dict(pairs)
        if len(names) != len(pairs):
            raise _broken(path, "a tensor name stands twice in the header")
        return names

    try:
        header = json.loads(raw, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise _broken(path, "the header is not a JSON object")
    return header


def _tensor(path: Path, name: str, entry: Any, data_start: int) -> TensorInfo:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(path, "entry lacks dtype, shape or data_offsets", tensor=name) from error
    if dtype not in DTYPE_BITS:
        raise _broken(path, f"unknown dtype {dtype!r}", tensor=name)
    numbers = [begin, end, *shape] if isinstance(shape, list) else [None]
    if not all(isinstance(number, int) and number >= 0 for number in numbers) or begin > end:
        raise _broken(path, "shape or offsets are not natural numbers in order", tensor=name)
    wanted = math.prod(shape) * DTYPE_BITS[dtype] // 8
    if wanted != end - begin:
        raise _broken(
            path,
            f"shape {shape} of {dtype} is {wanted} bytes, offsets say {end - begin}",
            tensor=name,
        )
    return TensorInfo(name, str(path), data_start + begin, end - begin, tuple(shape), dtype)


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
