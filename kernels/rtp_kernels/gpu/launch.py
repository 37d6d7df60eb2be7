"""Launches kernels of a step.

Triton finds out at every launch which compilation its arguments need, and that costs more of the
host's time than the launch itself. Arguments that are alike in all that Triton specialises on need
the same compilation, so it is looked up by that.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from triton import knobs

from rtp_kernels.gpu import pdl

_FIRST_LARGE = 2**31
_compiled: dict[Any, tuple[Any, tuple[Any, ...]]] = {}
"""What a launch was found to need, and the constants that follow its arguments."""


_held_back: list[set[Any]] = []
"""Of each `holding_back` under way, what it has met."""


@contextmanager
def holding_back() -> Iterator[None]:
    """Inside, kernels are compiled and none is launched: some would read what others that are
    not compiled yet should have written. Launches alike are met once."""
    _held_back.append(set())
    try:
        yield
    finally:
        _held_back.pop()


@functools.cache
def options(warps: int) -> dict[str, Any]:
    """Keywords of a launch with `warps` warps: dependent where this process's device has it."""
    dependent = pdl.dependent_launch()
    return {"num_warps": warps, "launch_pdl": dependent, "PDL": dependent}


def launch(
    kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int, **constants: Any
) -> None:
    """A kernel with parameter `PDL`, dependent on the one before where the device can."""
    enqueue(kernel, grid, *arguments, **constants, **options(warps))


def enqueue(kernel: Any, grid: tuple[int, ...], *arguments: Any, **keywords: Any) -> None:
    """`kernel[grid](*arguments, **keywords)`; constants and options are keywords, and no other."""
    key = (kernel, *map(_alike, arguments), *keywords, *keywords.values())
    if _held_back:
        if key not in _held_back[-1]:
            _held_back[-1].add(key)
            kernel.warmup(*arguments, grid=grid, **keywords)
        return
    known = _compiled.get(key)
    if known is not None:
        compiled, constants = known
        compiled[(*grid, 1, 1)](*arguments, *constants)
        return
    compiled = kernel[grid](*arguments, **keywords)
    if compiled is not None and not knobs.runtime.interpret:
        names = kernel.arg_names[len(arguments) :]
        _compiled[key] = compiled, tuple(keywords[name] for name in names)


def _alike(argument: Any) -> Any:
    """All that Triton specialises on, or finer: equal for arguments that share a compilation."""
    kind = type(argument)
    if kind is int:
        fits = -_FIRST_LARGE <= argument < _FIRST_LARGE
        return int, argument == 1, argument % 16 == 0, fits
    if isinstance(argument, torch.Tensor):
        return argument.dtype, argument.data_ptr() % 16 == 0
    if kind is float or argument is None:
        return kind
    return kind, argument.base.dtype, *argument.block_shape  # a tensor descriptor
