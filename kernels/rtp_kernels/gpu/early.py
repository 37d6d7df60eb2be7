"""What the first kernel of a process waits for, begun before there is one."""

from __future__ import annotations


def read_triton() -> None:
    """Import Triton and let it read its own files: every kernel's key in its cache holds their
    digest. The interpreter's lock is free for most of it."""
    from triton.runtime.cache import triton_key

    triton_key()
