"""GGUF files (versions 2 and 3): metadata and tensor directory, bounds-checked.

Layout: magic, version, counts, key-value metadata, tensor directory, aligned data; all
little-endian.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtp_core.errors import WeightLoadError
from rtp_core.loading.foreign import START_BYTES, refuse_foreign
from rtp_core.loading.objects.stand_in import file_bytes

MAGIC = b"GGUF"
MAX_ITEMS = 2**26
MAX_ALIGNMENT = 2**20
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
            12: "d"}  # fmt: skip
_STRING, _ARRAY = 8, 9

# type id -> (name, weights a block, bytes a block)
TENSOR_TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 28: ("F64", 1, 8), 30: ("BF16", 1, 2),
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
    """Metadata by key, the tensor directory, and a hash of the bytes that held both."""

    path: Path
    metadata: dict[str, Any]
    tensors: tuple[GGUFTensor, ...]
    header_digest: bytes


def read_gguf(path: Path) -> GGUFFile:
    """Raises WeightLoadError when the file is truncated, damaged or of an unknown version."""
    with path.open("rb") as file:
        refuse_foreign(path, file.read(START_BYTES))
        size = file_bytes(path)
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    reader = _Reader(path, memoryview(data))
    num_tensors, num_keys = _counts(reader)
    metadata: dict[str, Any] = {}
    for _ in range(num_keys):
        key = reader.string()
        metadata[key] = reader.value(reader.scalar("I"))
    directory = [_entry(reader) for _ in range(num_tensors)]
    alignment = _alignment(reader, metadata)
    start = -(-reader.at // alignment) * alignment
    tensors = tuple(_locate(reader, entry, start, size) for entry in directory)
    _check_apart(reader, tensors)
    return GGUFFile(path, metadata, tensors, reader.digest())


class _Reader:
    def __init__(self, path: Path, data: memoryview) -> None:
        self._path = path
        self._data = data
        self.at = 0

    def broken(self, message: str, tensor: str = "") -> WeightLoadError:
        return WeightLoadError(
            message, file=str(self._path), tensor=tensor, remedy="download the file again"
        )

    def take(self, count: int) -> memoryview:
        end = self.at + count
        if end > len(self._data):
            raise self.broken(f"truncated: {count} bytes wanted at byte {self.at}")
        taken = self._data[self.at : end]
        self.at = end
        return taken

    def scalar(self, form: str) -> Any:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def count(self) -> int:
        number = self.scalar("Q")
        if number > MAX_ITEMS:
            raise self.broken(f"an impossible count of {number} at byte {self.at - 8}")
        return number

    def string(self) -> str:
        return str(self.take(self.count()), "utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array()
        raise self.broken(f"unknown metadata type {kind} at byte {self.at}")

    def _array(self) -> list[Any]:
        kind, length = self.scalar("I"), self.count()
        if kind in _SCALARS:
            form = f"<{length}{_SCALARS[kind]}"
            return list(struct.unpack(form, self.take(struct.calcsize(form))))
        if kind == _STRING:
            return [self.string() for _ in range(length)]
        raise self.broken(f"arrays of type {kind} are not supported")

    def digest(self) -> bytes:
        """Of everything read so far."""
        return hashlib.blake2b(self._data[: self.at], digest_size=16).digest()


def _counts(reader: _Reader) -> tuple[int, int]:
    """Number of tensors and of metadata keys, once magic and version are right."""
    if reader.take(4) != MAGIC:
        raise reader.broken("not a GGUF file")
    version = reader.scalar("I")
    if version not in (2, 3):
        raise reader.broken(f"GGUF version {version} is not supported (2 and 3 are)")
    return reader.count(), reader.count()


def _alignment(reader: _Reader, metadata: Mapping[str, Any]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 1 <= alignment <= MAX_ALIGNMENT:
        raise reader.broken(f"general.alignment {alignment!r} is impossible")
    return alignment


def _entry(reader: _Reader) -> tuple[str, tuple[int, ...], int, int]:
    name = reader.string()
    dims = reader.scalar("I")
    if not 1 <= dims <= 4:
        raise reader.broken(f"{dims} dimensions", name)
    shape = tuple(reversed([reader.scalar("Q") for _ in range(dims)]))
    return name, shape, reader.scalar("I"), reader.scalar("Q")


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


def _check_apart(reader: _Reader, tensors: tuple[GGUFTensor, ...]) -> None:
    """Names are unique and no byte belongs to two tensors."""
    names: set[str] = set()
    end = 0
    for tensor in sorted(tensors, key=lambda one: (one.offset, one.num_bytes)):
        if tensor.name in names:
            raise reader.broken("stands twice in the directory", tensor.name)
        if tensor.offset < end:
            raise reader.broken(f"overlap at byte {tensor.offset}", tensor.name)
        names.add(tensor.name)
        end = tensor.offset + tensor.num_bytes
