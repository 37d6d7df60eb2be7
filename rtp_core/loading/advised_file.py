"""Reads whose bytes are all asked for before the first is waited for.

The kernel splits a read of a network or FUSE file into requests of its read-ahead window, often
128 KiB, and keeps about two of them under way: a large read then waits for most of its round
trips one after another. Advice of at most that window starts a request without waiting.
"""

from __future__ import annotations

import os

from rtp_core.loading.read_at import LocalFile

WINDOW_BYTES = 128 * 2**10
"""Longer advice is cut to the window of the mount, and this is the least in use."""


class AdvisedFile(LocalFile):
    """`ReadAt` for storage that answers slowly."""

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """See ReadAt."""
        if hasattr(os, "posix_fadvise"):
            for at in range(offset, offset + len(buffer), WINDOW_BYTES):
                os.posix_fadvise(self._descriptor, at, WINDOW_BYTES, os.POSIX_FADV_WILLNEED)
        return super().read_into(offset, buffer)
