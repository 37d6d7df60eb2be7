"""``fp8``: e4m3 weights with a scale a block (DeepSeek, Qwen3) or a tensor.

`weight` e4m3 [out, in]; `weight_scale_inv` [out / block, in / block], rounded up, multiplies in
spite of its name; without `weight_block_size` there is one scale a tensor, named so or
`weight_scale`. Scales are floats, or powers of two (``ue8m0``).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from rtp_core.api import TensorInfo
from rtp_core.errors import WeightLoadError
from rtp_core.loading.quantized.floats import ScaledFloats
from rtp_core.loading.quantized.settings import check_excluded, choice, natural, refuse, texts
from rtp_core.loading.quantized.stored import FLOATS, Kind, Stored, check, matrix
from rtp_core.loading.quantized.tensor import CODES, SCALES, Parts

E4M3 = "F8_E4M3"
SCALE_DTYPES = (*FLOATS, "F8_E8M0")
_EXCLUDED = ("modules_to_not_convert", "ignored_layers")
Block = tuple[int, int]


def read(settings: Mapping[str, Any], stored: Stored) -> None:
    """Every e4m3 weight. Raises ModelError or WeightLoadError."""
    choice(settings, "fmt", ("e4m3", "float8_e4m3fn"), "e4m3")
    choice(settings, "activation_scheme", ("dynamic", "static"), "dynamic")
    choice(settings, "expert_dtype", ("fp8",), "fp8")
    block, excluded = _block(settings), texts(settings, *_EXCLUDED)
    for module in stored.modules("weight"):
        if stored.tensors[f"{module}.weight"].dtype == E4M3:
            check_excluded(module, excluded, "/".join(_EXCLUDED))
            _weight(stored, module, block)


def scaled(
    stored: Stored, module: str, codes: TensorInfo, scales: TensorInfo, block: Block
) -> None:
    """The weight of `module` with a scale for each `block` of rows and columns."""
    rows, columns = matrix(codes, (E4M3,))
    height, width = min(block[0], rows), min(block[1], columns)
    blocks = (-(-rows // height), -(-columns // width))
    flat = [(), (1,)] if blocks == (1, 1) else [(rows,)] if blocks == (rows, 1) else []
    parts = {CODES: codes, SCALES: check(scales, SCALE_DTYPES, blocks, *flat)}
    read_parts = partial(unpack, blocks=blocks, block=(height, width))
    kind = Kind(f"float8_e4m3, {_words(block, (rows, columns))}", read_parts)
    stored.put(module, (rows, columns), parts, kind)


def unpack(parts: Parts, *, blocks: tuple[int, int], block: Block) -> ScaledFloats:
    """The weight [out, in]."""
    return ScaledFloats(parts[CODES], parts[SCALES].view(blocks), *block)


def _weight(stored: Stored, module: str, block: Block | None) -> None:
    scales = stored.find(f"{module}.weight_scale_inv") or stored.find(f"{module}.weight_scale")
    codes = stored.take(f"{module}.weight")
    if scales is None:
        wanted = "weight_scale" if block is None else "weight_scale_inv"
        raise WeightLoadError(
            f"missing: {module}.{wanted}", file=codes.file, remedy="the checkpoint is incomplete"
        )
    rows, columns = matrix(codes, (E4M3,))
    if block is None:
        one_a_row = scales.shape in ((rows,), (rows, 1)) and rows > 1
        block = (1 if one_a_row else rows, columns)
    scaled(stored, module, codes, scales, block)


def _block(settings: Mapping[str, Any]) -> Block | None:
    match settings.get("weight_block_size"):
        case None:
            return None
        case [height, width]:
            return natural(height, "weight_block_size"), natural(width, "weight_block_size")
        case other:
            refuse("weight_block_size", other, "rows and columns")


def _words(block: Block, shape: tuple[int, int]) -> str:
    if block == shape:
        return "a scale a tensor"
    if block[0] > 1:
        return f"blocks of {block[0]} x {block[1]}"
    return "a scale a row" if block[1] == shape[1] else f"groups of {block[1]}"
