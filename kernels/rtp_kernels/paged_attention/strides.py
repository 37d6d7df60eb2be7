"""How far pages, tokens and heads of a layer's planes lie apart."""

from __future__ import annotations

from torch import Tensor


def plane_strides(planes: tuple[Tensor, Tensor], block_size: int) -> tuple[int, int, int]:
    """(page, token, head) strides in elements, the same for K and V.

    Planes are [kv_heads, slots, head_dim], a page being `block_size` slots, or
    [kv_heads, pages, block_size, head_dim]. Raises ValueError when K and V differ, or when a
    head's dimensions are not adjacent.
    """
    keys, values = planes
    strides = keys.stride()
    if strides != values.stride() or strides[-1] != 1:
        raise ValueError(
            f"K and V planes have strides {strides} and {values.stride()}: "
            "expected the same for both, with 1 at the end"
        )
    if len(strides) == 4:
        return strides[1], strides[2], strides[0]
    return block_size * strides[1], strides[1], strides[0]
