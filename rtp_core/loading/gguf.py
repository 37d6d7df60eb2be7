"""GGUF files (versions 2 and 3): metadata and tensor directory, bounds-checked.

Layout: magic, version, counts, key-value metadata, tensor directory, aligned data.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rtp_core.errors import WeightLoadError

MAGIC = b"GGUF"
MAX_ITEMS = 2**26
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q",
            11: "<q", 12: "<d"}  # fmt: skip
_STRING, _ARRAY = 8, 9

# type id -> (name, weights a block, bytes a block)
TENSOR_TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 30: ("BF16", 1, 2),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GGUFTensor:
    """`shape` has rows first; `offset` counts from the start of the file."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class GGUFFile:
    """Metadata by key and the tensor directory."""

    metadata: dict[str, Any]
    tensors: tuple[GGUFTensor, ...]


def read_gguf(path: Path) -> GGUFFile:
    """Raises WeightLoadError when the file is truncated, damaged or of an unknown version."""
    size = path.stat().st_size
    data = np.memmap(path, mode="r", dtype=np.uint8) if size else np.zeros(0, np.uint8)
    reader = _Reader(path, memoryview(data))
    if reader.take(4) != MAGIC:
        raise reader.broken("not a GGUF file")
    version = reader.scalar("<I")
    if version not in (2, 3):
        raise reader.broken(f"GGUF version {version} is not supported (2 and 3 are)")
    num_tensors, num_keys = reader.count(), reader.count()
    metadata: dict[str, Any] = {}
    for _ in range(num_keys):
        key = reader.string()
        metadata[key] = reader.value(reader.scalar("<I"))
    directory = [_entry(reader) for _ in range(num_tensors)]
    alignment = int(metadata.get("general.alignment", 32)) or 32
    start = -(-reader.at // alignment) * alignment
    tensors = tuple(_locate(reader, entry, start, size) for entry in directory)
    return GGUFFile(metadata, tensors)


class _Reader:
    def __init__(self, path: Path, data: memoryview) -> None:
        self._path = path
        self._data = data
        self.at = 0

    def broken(self, message: str, tensor: str = "") -> WeightLoadError:
        return WeightLoadError(
            message, file=str(self._path), tensor=tensor, remedy="download the file again"
        )

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self._data):
            raise self.broken(f"truncated: {count} bytes wanted at byte {self.at}")
        taken = bytes(self._data[self.at : end])
        self.at = end
        return taken

    def scalar(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def count(self) -> int:
        number = self.scalar("<Q")
        if number > MAX_ITEMS:
            raise self.broken(f"an impossible count of {number} at byte {self.at - 8}")
        return number

    def string(self) -> str:
        return self.take(self.count()).decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array()
        raise self.broken(f"unknown metadata type {kind} at byte {self.at}")

    def _array(self) -> list[Any]:
        kind, length = self.scalar("<I"), self.count()
        if kind in _SCALARS:
            form = _SCALARS[kind]
            raw = self.take(length * struct.calcsize(form))
            return np.frombuffer(raw, dtype=np.dtype(form)).tolist()
        if kind == _STRING:
            return [self.string() for _ in range(length)]
        raise self.broken(f"arrays of type {kind} are not supported")


def _entry(reader: _Reader) -> tuple[str, tuple[int, ...], int, int]:
    name = reader.string()
    dims = reader.scalar("<I")
    if not 1 <= dims <= 4:
        raise reader.broken(f"{dims} dimensions", name)
    shape = tuple(reversed([reader.scalar("<Q") for _ in range(dims)]))
    return name, shape, reader.scalar("<I"), reader.scalar("<Q")


def _locate(
    reader: _Reader, entry: tuple[str, tuple[int, ...], int, int], start: int, size: int
) -> GGUFTensor:
    name, shape, kind, offset = entry
    if kind not in TENSOR_TYPES:
        raise reader.broken(f"tensor type {kind} is not supported", name)
    dtype, weights, num_bytes = TENSOR_TYPES[kind]
    if shape[-1] % weights:
        raise reader.broken(f"rows of {shape[-1]} are not whole {dtype} blocks", name)
    total = math.prod(shape) // weights * num_bytes
    if start + offset + total > size:
        raise reader.broken(f"truncated by {start + offset + total - size} bytes", name)
    return GGUFTensor(name, shape, dtype, start + offset, total)
