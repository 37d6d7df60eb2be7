"""A rank's file: aligned tensors in the order they are loaded, whole on disk or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import torch

from rtp_core.loading.converted.form import RECORD, Conversion, as_json, code_names, rank_file
from rtp_kernels.linear_weight import LinearWeight

ALIGNMENT = 64
_DATA_ALIGNMENT = 4096
_NAMES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint8: "U8",
    torch.int64: "I64",
    torch.bool: "BOOL",
}
_PIECE = 2**24
Tensors = Mapping[str, torch.Tensor]
Parameters = Mapping[str, torch.Tensor | LinearWeight]


def flattened(parameters: Parameters) -> dict[str, torch.Tensor]:
    """Parameters by the names of the file, each weight followed by its codes."""
    found: dict[str, torch.Tensor] = {}
    for name, one in parameters.items():
        if isinstance(one, torch.Tensor):
            found[name] = one
            continue
        found[name] = one.dense
        codes = one.codes
        parts = (codes.q, codes.scale, codes.minimum)
        found.update(zip(code_names(name, codes.bits), parts, strict=True))
    return found


def num_file_bytes(ranks: Iterable[Parameters]) -> int:
    """Size of all files but for their headers."""
    return sum(one.nbytes for rank in ranks for one in flattened(rank).values())


def write_ranks(
    folder: Path,
    conversion: Conversion,
    ranks: Sequence[Parameters],
    advance: Callable[[int], None],
) -> None:
    """A file for each rank, then the record with their digests."""
    digests: dict[str, str] = {}
    for rank, parameters in enumerate(ranks):
        name = rank_file(rank, len(ranks))
        metadata = conversion.metadata(rank)
        digests[name] = write_tensors(folder / name, flattened(parameters), metadata, advance)
    whole = msgspec.structs.replace(conversion, files=digests)
    (folder / RECORD).write_bytes(as_json(whole))


def write_tensors(
    path: Path,
    tensors: Tensors,
    metadata: Mapping[str, str],
    advance: Callable[[int], None],
) -> str:
    """The file's BLAKE2b digest; its bytes are on disk on return.

    The header is padded, and tensors of odd sizes come last, so that all but those can be used
    where they lie in a map.
    """
    ordered = dict(sorted(tensors.items(), key=lambda item: item[1].nbytes % ALIGNMENT != 0))
    digest = hashlib.blake2b(digest_size=32)
    with path.open("wb") as file:
        for piece in (_header(ordered, metadata), *_pieces(ordered)):
            file.write(piece)
            digest.update(piece)
            advance(len(piece))
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _header(tensors: Tensors, metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    at = 0
    for name, one in tensors.items():
        end = at + one.nbytes
        entries[name] = {
            "dtype": _NAMES[one.dtype],
            "shape": list(one.shape),
            "data_offsets": [at, end],
        }
        at = end
    raw = json.dumps(entries, separators=(",", ":")).encode()
    raw += b" " * (-(8 + len(raw)) % _DATA_ALIGNMENT)
    return struct.pack("<Q", len(raw)) + raw


def _pieces(tensors: Tensors) -> Iterator[memoryview]:
    for one in tensors.values():
        data = one.contiguous().view(-1).view(torch.uint8).numpy().data
        for at in range(0, len(data), _PIECE):
            yield data[at : at + _PIECE]
