"""Launches kernels of a step."""

from __future__ import annotations

import functools
from typing import Any

from rtp_kernels.gpu import pdl


@functools.cache
def options(warps: int) -> dict[str, Any]:
    """Keywords of a launch with `warps` warps: dependent where this process's device has it."""
    dependent = pdl.dependent_launch()
    return {"num_warps": warps, "launch_pdl": dependent, "PDL": dependent}


def launch(
    kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int, **constants: Any
) -> None:
    """A kernel with parameter `PDL`, dependent on the one before where the device can."""
    kernel[grid](*arguments, **constants, **options(warps))
