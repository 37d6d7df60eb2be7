"""The beginning of an object with weights: all that a plan needs of it."""

from __future__ import annotations

import struct
from pathlib import Path

from rtp_core.errors import WeightLoadError
from rtp_core.loading.gguf import read_gguf
from rtp_core.loading.objects.stand_in import remember
from rtp_core.loading.objects.store import ObjectFile
from rtp_core.loading.safetensors_header import MAX_HEADER_BYTES

_FIRST_BYTES = 2**18
_GGUF_BYTES = 4 * 2**20


def write_header(file: ObjectFile, target: Path) -> None:
    """`target` gets the header of a safetensors or GGUF object, and nothing behind it."""
    if target.suffix == ".gguf":
        _bring_gguf(file, target)
    else:
        target.write_bytes(_safetensors_header(file))


def _safetensors_header(file: ObjectFile) -> bytes:
    start = _first(file, _FIRST_BYTES)
    length = struct.unpack_from("<Q", start)[0] if len(start) >= 8 else 0
    if len(start) >= 8 + length or length > MAX_HEADER_BYTES:
        return start[: 8 + length]  # an impossible length is for the reader of headers to refuse
    return _first(file, 8 + length)


def _bring_gguf(file: ObjectFile, target: Path) -> None:
    """The header's length is known only once it was read: more each time, until it is whole."""
    remember(target, file)
    size = _GGUF_BYTES
    while True:
        target.write_bytes(_first(file, size))
        try:
            read_gguf(target)
        except WeightLoadError:
            if size >= file.info.num_bytes:
                raise
            size *= 4
        else:
            return


def _first(file: ObjectFile, num_bytes: int) -> bytes:
    return file.read_range(0, min(num_bytes, file.info.num_bytes))
