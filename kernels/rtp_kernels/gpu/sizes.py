"""Whole numbers of launches, as plain integers: Triton's own functions cost microseconds a call."""

from __future__ import annotations


def ceil_div(number: int, size: int) -> int:
    """Parts of `size` that `number` takes."""
    return -(-number // size)


def next_power_of_2(number: int) -> int:
    """The smallest power of two that is `number` at least, which is 1 or more."""
    return 1 << (number - 1).bit_length()
