"""GPTQ: codes of 2, 3, 4 or 8 bits, packed along the inputs.

`qweight` int32 [in * bits / 32, out], `qzeros` int32 [groups, out * bits / 32], `scales`
[groups, out], `g_idx` int32 [in] with each input's group (`desc_act` scatters them). Format
``gptq`` stores each zero point less one, modulo 2^bits; ``gptq_v2`` stores it plain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from rtp_core.loading.quantized.integers import IntegerGroups, code_bits, grouped, unpack_words
from rtp_core.loading.quantized.settings import (
    check_excluded,
    choice,
    flag,
    group_size,
    refuse,
    section,
    texts,
)
from rtp_core.loading.quantized.stored import (
    FLOATS,
    Kind,
    Stored,
    broken,
    check,
    matrix,
    num_groups,
)
from rtp_core.loading.quantized.tensor import CODES, INDEX, SCALES, ZEROS, Parts

_EXCLUDED = "modules_to_not_convert"


@dataclass(frozen=True, slots=True)
class _Form:
    """What is the same for all weights; `scattered`: `g_idx` may be out of order."""

    bits: int
    group_size: int | None
    plain_zeros: bool
    scattered: bool


def read(settings: Mapping[str, Any], stored: Stored) -> None:
    """Every module with a `qweight`. Raises ModelError or WeightLoadError."""
    bits = choice(settings, "bits", (2, 3, 4, 8), None)
    key = "checkpoint_format" if settings.get("checkpoint_format") is not None else "format"
    plain_zeros = choice(settings, key, ("gptq", "gptq_v2"), "gptq") == "gptq_v2"
    choice(settings, "is_marlin_format", (False,), False)
    choice(settings, "pack_dtype", ("int32",), "int32")
    scattered = flag(settings, "desc_act", False)
    _check_dynamic(settings)
    form = _Form(bits, group_size(settings), plain_zeros, scattered)
    excluded = texts(settings, _EXCLUDED)
    for module in stored.modules("qweight"):
        check_excluded(module, excluded, _EXCLUDED)
        _weight(stored, module, form)


def _check_dynamic(settings: Mapping[str, Any]) -> None:
    """GPTQModel's settings by module: those that leave modules out show in the tensors."""
    for pattern, override in section(settings, "dynamic").items():
        if override and not pattern.startswith("-:"):
            refuse("dynamic", {pattern: override}, "the same bits and groups for all modules")


def _weight(stored: Stored, module: str, form: _Form) -> None:
    codes, bits = stored.take(f"{module}.qweight"), form.bits
    words, rows = matrix(codes, ("I32",))
    if words * 32 % bits or rows * bits % 32:
        raise broken(codes, f"shape {list(codes.shape)} does not hold whole words of {bits} bits")
    columns = words * 32 // bits
    groups = num_groups(codes, columns, form.group_size)
    parts = {
        CODES: codes,
        ZEROS: check(stored.take(f"{module}.qzeros"), ("I32",), (groups, rows * bits // 32)),
        SCALES: check(stored.take(f"{module}.scales"), FLOATS, (groups, rows)),
    }
    scattered = form.scattered and groups > 1
    name = f"{module}.g_idx"
    if index := stored.take(name) if scattered else stored.find(name):
        parts[INDEX] = check(index, ("I32",), (columns,))
    words_of_kind = f"int{bits}, groups of {columns // groups}{' out of order' * scattered}"
    width = None if scattered else code_bits(bits, columns, groups)
    read_parts = partial(unpack, bits=bits, plain_zeros=form.plain_zeros)
    stored.put(module, (rows, columns), parts, Kind(words_of_kind, read_parts, width))


def unpack(parts: Parts, *, bits: int, plain_zeros: bool) -> IntegerGroups:
    """The weight [out, in]. Raises ValueError when `g_idx` names groups that there are not."""
    zero = unpack_words(parts[ZEROS], bits)
    if not plain_zeros:
        zero = (zero + 1) & (2**bits - 1)
    q = unpack_words(parts[CODES].T, bits)
    return grouped(q, parts[SCALES].T, zero.T.float(), parts.get(INDEX))
