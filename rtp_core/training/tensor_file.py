"""Safetensors files that are whole under their name or not there at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from rtp_core.api import TensorInfo
from rtp_core.loading.converted.write import write_tensors
from rtp_core.loading.safetensors_header import read_header, read_metadata

_DTYPES = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "BOOL": torch.bool,
    "U8": torch.uint8,
}


def save_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> None:
    """From any device. What was there before stays until the new file is whole."""
    on_host = {name: one.detach().cpu().contiguous() for name, one in tensors.items()}
    partial = path.with_name(path.name + ".partial")
    write_tensors(partial, on_host, metadata, lambda _: None)
    partial.replace(path)


def save_text(path: Path, text: str) -> None:
    """As `save_tensors`, of UTF-8."""
    save_bytes(path, text.encode())


def save_bytes(path: Path, data: bytes) -> None:
    """As `save_tensors`, of anything."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """On the host. Raises WeightLoadError for a damaged file."""
    data = bytearray(path.read_bytes())
    return {name: _tensor(data, one) for name, one in read_header(path).items()}


def metadata_of(path: Path) -> Mapping[str, str]:
    """What `save_tensors` was given."""
    return read_metadata(path)


def _tensor(data: bytearray, info: TensorInfo) -> torch.Tensor:
    dtype = _DTYPES[info.dtype]
    if not info.num_bytes:
        return torch.empty(info.shape, dtype=dtype)
    raw = torch.frombuffer(data, dtype=torch.uint8, count=info.num_bytes, offset=info.offset)
    return raw.clone().view(dtype).view(info.shape)
