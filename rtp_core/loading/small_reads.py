"""A few bytes of many tensors, read before the plan is made."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from rtp_core.api import TensorInfo
from rtp_core.errors import WeightLoadError
from rtp_core.loading.objects.stand_in import read_range

_THREADS = 8
_MAX_GAP_BYTES = 64 * 2**10


def read_pairs(tensors: Sequence[TensorInfo]) -> list[tuple[int, int]]:
    """The two numbers of each I32 or I64 tensor of shape [2]."""
    forms = {"I32": "<2i", "I64": "<2q"}
    return [
        struct.unpack(forms[one.dtype], data)
        for one, data in zip(tensors, read_small(tensors), strict=True)
    ]


def read_small(tensors: Sequence[TensorInfo]) -> list[bytes]:
    """The bytes of each; neighbours in a file share a read."""
    order = sorted(range(len(tensors)), key=lambda at: (tensors[at].file, tensors[at].offset))
    runs: list[list[int]] = []
    for at in order:
        if runs and _near(tensors[runs[-1][-1]], tensors[at]):
            runs[-1].append(at)
        else:
            runs.append([at])
    found: list[bytes] = [b""] * len(tensors)
    with ThreadPoolExecutor(_THREADS) as pool:
        for run, data in zip(runs, pool.map(lambda run: _read(tensors, run), runs), strict=True):
            for at, one in zip(run, data, strict=True):
                found[at] = one
    return found


def _near(before: TensorInfo, after: TensorInfo) -> bool:
    gap = after.offset - before.offset - before.num_bytes
    return before.file == after.file and gap <= _MAX_GAP_BYTES


def _read(tensors: Sequence[TensorInfo], run: Sequence[int]) -> list[bytes]:
    first, last = tensors[run[0]], tensors[run[-1]]
    data = read_range(first.file, first.offset, last.offset + last.num_bytes - first.offset)
    starts = [tensors[at].offset - first.offset for at in run]
    if len(data) < starts[-1] + last.num_bytes:
        raise WeightLoadError("truncated since it was opened", file=first.file, tensor=last.name)
    return [
        data[start : start + tensors[at].num_bytes] for at, start in zip(run, starts, strict=True)
    ]
