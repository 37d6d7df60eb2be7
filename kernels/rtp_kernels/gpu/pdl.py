"""Programmatic dependent launch: a kernel starts while the one before it still runs.

Rules for every kernel launched this way (CUDA programming guide, programmatic dependent launch):

- it calls `wait` in every program before it writes or exits, idle programs too: the next
  kernel's wait covers this kernel, and the ones before it only because this one waited;
- before `wait` it loads only what the step does not write: weights, block tables, lengths
  and keys of earlier steps;
- a step begins with a kernel launched without it, so that no load can precede the step before.
"""

from __future__ import annotations

import functools

import torch
import triton
from triton import knobs
from triton import language as tl
from triton.language.extra import cuda as cuda_language


@triton.jit
def release(PDL: tl.constexpr):
    """The next kernel may start now; its own `wait` still waits for this one's end."""
    if PDL:
        cuda_language.gdc_launch_dependents()


@triton.jit
def wait(PDL: tl.constexpr):
    """Until every kernel before this one is complete and its writes are visible."""
    if PDL:
        cuda_language.gdc_wait()


@functools.cache
def dependent_launch() -> bool:
    """Whether this process's device has it (compute capability 9.0 and up)."""
    if knobs.runtime.interpret or not torch.cuda.is_available():
        return False
    return torch.cuda.get_device_capability() >= (9, 0)
