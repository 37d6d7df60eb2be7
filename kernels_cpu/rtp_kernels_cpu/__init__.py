"""Compiled CPU operations for decoding: quantized linear layers and attention over pages.

`available()` says whether they can be used here; callers fall back to `rtp_kernels` if not.
`linear` and `attention` hold the operations, `weights` the weight format, `reference` the same
in plain torch.
"""

from __future__ import annotations

__version__ = "0.1.0"


def available() -> str | None:
    """None if the compiled library works in this process, else the reason it does not."""
    from rtp_kernels_cpu.self_test import failure

    return failure()
