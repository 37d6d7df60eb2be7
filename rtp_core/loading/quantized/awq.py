"""AWQ, version gemm: 4-bit codes, eight outputs an int32.

`qweight` int32 [in, out / 8], `qzeros` int32 [in / group, out / 8], `scales` [in / group, out].
The eight nibbles of a word, lowest first, are outputs 0, 2, 4, 6, 1, 3, 5, 7 (AutoAWQ's
packing). Zero points are plain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from rtp_core.loading.quantized.integers import IntegerGroups, code_bits, grouped
from rtp_core.loading.quantized.settings import check_excluded, choice, group_size, texts
from rtp_core.loading.quantized.stored import FLOATS, Kind, Stored, check, matrix, num_groups
from rtp_core.loading.quantized.tensor import CODES, SCALES, ZEROS, Parts

_BITS = 4
_A_WORD = 8
_NIBBLE_OF_OUTPUT = (0, 4, 1, 5, 2, 6, 3, 7)
_EXCLUDED = "modules_to_not_convert"


def read(settings: Mapping[str, Any], stored: Stored) -> None:
    """Every module with a `qweight`. Raises ModelError or WeightLoadError."""
    choice(settings, "bits", (_BITS,), None)
    choice(settings, "version", ("gemm", "GEMM"), "gemm")
    choice(settings, "zero_point", (True,), True)
    size, excluded = group_size(settings), texts(settings, _EXCLUDED)
    for module in stored.modules("qweight"):
        check_excluded(module, excluded, _EXCLUDED)
        _weight(stored, module, size)


def _weight(stored: Stored, module: str, size: int | None) -> None:
    codes = stored.take(f"{module}.qweight")
    columns, words = matrix(codes, ("I32",))
    groups = num_groups(codes, columns, size)
    rows = words * _A_WORD
    parts = {
        CODES: codes,
        ZEROS: check(stored.take(f"{module}.qzeros"), ("I32",), (groups, words)),
        SCALES: check(stored.take(f"{module}.scales"), FLOATS, (groups, rows)),
    }
    name = f"int{_BITS}, groups of {columns // groups}"
    kind = Kind(name, unpack, code_bits(_BITS, columns, groups))
    stored.put(module, (rows, columns), parts, kind)


def unpack(parts: Parts) -> IntegerGroups:
    """The weight [out, in]."""
    return grouped(_outputs(parts[CODES]), parts[SCALES].T, _outputs(parts[ZEROS]).float())


def _outputs(words: torch.Tensor) -> torch.Tensor:
    """int32 [n, out / 8] -> uint8 [out, n]."""
    packed = words.T.contiguous()
    out = torch.empty(len(packed), _A_WORD, len(words), dtype=torch.uint8)
    for output, nibble in enumerate(_NIBBLE_OF_OUTPUT):
        out[:, output] = (packed >> _BITS * nibble) & 15
    return out.flatten(0, 1)
