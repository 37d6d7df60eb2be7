"""Compiled CPU operations: linear layers for few rows, attention over pages, norms and gates.

`available()` says whether they can be used here; callers fall back to `rtp_kernels` if not.
`linear`, `attention` and `rows` hold the operations, `weights` the weight format, modules named
`*_reference` the same in plain torch.
"""

from __future__ import annotations

__version__ = "0.1.0"


def available() -> str | None:
    """None if the compiled library works in this process, else the reason it does not."""
    from rtp_kernels_cpu.self_test import failure

    return failure()
