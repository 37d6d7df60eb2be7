"""A converted directory: one safetensors file a rank, and what it was made for.

Tensors bear the names of the model's parameters. A weight that keeps group codes has three more:
``NAME.q4`` (or ``q8``; uint8, one code a byte), ``NAME.scale`` and ``NAME.minimum`` (float16).
`rtp_converted.json` says which model, precision and split it was made for; each file repeats it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from rtp_core.api import TensorInfo
from rtp_core.errors import ModelError, WeightLoadError
from rtp_core.loading.safetensors_header import read_header, read_metadata

RECORD = "rtp_converted.json"
VERSION = 1
"""Raised when parameters of equal models get other names, shapes or values."""
AGAIN = "run rtp convert on the original model again"
_MOST_RECORD_BYTES = 2**20


class Conversion(msgspec.Struct, frozen=True):
    """`model` is the original's content id; `weights` the form of linear ones (``bf16``, ``auto``,
    ``int4``, ``int8`` as asked for); `files` give BLAKE2b digests by name."""

    version: int
    model: str
    source: str
    dtype: str
    weights: str
    tensor_parallel_size: int
    files: Mapping[str, str]

    def metadata(self, rank: int) -> dict[str, str]:
        """What the file of a rank says of itself."""
        return {
            "format": "rtp",
            "version": str(self.version),
            "model": self.model,
            "dtype": self.dtype,
            "weights": self.weights,
            "tensor_parallel_size": str(self.tensor_parallel_size),
            "rank": str(rank),
        }


def rank_file(rank: int, size: int) -> str:
    """Name of a rank's file."""
    return f"rank-{rank:05d}-of-{size:05d}.safetensors"


def read_conversion(root: Path) -> Conversion | None:
    """What a directory was converted for, or None if it was not."""
    path = root / RECORD
    if not path.is_file():
        return None
    if path.stat().st_size > _MOST_RECORD_BYTES:
        raise ModelError(f"{path} is too large", remedy=AGAIN)
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Conversion)
    except msgspec.DecodeError as error:
        raise ModelError(f"{path} is damaged: {error}", remedy=AGAIN) from error
    if found.version != VERSION:
        raise ModelError(
            f"{root} was converted in version {found.version}, this is version {VERSION}",
            remedy=AGAIN,
        )
    return found


def converted_tensors(root: Path, conversion: Conversion) -> Mapping[str, TensorInfo]:
    """Those of the one rank. Raises ModelError for directories made for several."""
    size = conversion.tensor_parallel_size
    if size != 1:
        raise ModelError(
            f"{root} was converted for {size} ranks, this engine is one",
            remedy=f"{AGAIN}, with --tensor-parallel-size 1",
        )
    return rank_tensors(root, conversion, 0)


def rank_tensors(root: Path, conversion: Conversion, rank: int) -> Mapping[str, TensorInfo]:
    """One rank's. Raises WeightLoadError when its file does not belong to the record."""
    path = root / rank_file(rank, conversion.tensor_parallel_size)
    if not path.is_file():
        raise WeightLoadError("is missing", file=str(path), remedy=AGAIN)
    expected, found = conversion.metadata(rank), read_metadata(path)
    for key, value in expected.items():
        if found.get(key) != value:
            raise WeightLoadError(
                f"its {key} is {found.get(key)!r:.80}, {RECORD} says {value!r}",
                file=str(path),
                remedy=AGAIN,
            )
    return read_header(path)


def code_names(name: str, bits: int) -> tuple[str, str, str]:
    """Names of a weight's codes, scales and minima."""
    return f"{name}.q{bits}", f"{name}.scale", f"{name}.minimum"


def as_json(conversion: Conversion) -> bytes:
    """The record's content."""
    made: dict[str, Any] = msgspec.to_builtins(conversion)
    return msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n"
