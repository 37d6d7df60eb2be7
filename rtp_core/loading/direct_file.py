"""Reads past the page cache (O_DIRECT), where storage, offsets and buffers allow it."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Self

from rtp_core.loading.read_at import LocalFile

ALIGNMENT = 4096
"""Of offsets, lengths and addresses; no disk in use has larger sectors."""
_REFUSED = (errno.EINVAL, errno.EOPNOTSUPP)


class DirectFile:
    """`ReadAt`. What the system refuses to read directly is read through the page cache."""

    def __init__(self, path: str) -> None:
        self._buffered = LocalFile(path)
        try:
            self._descriptor = os.open(
                path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_DIRECT", 0)
            )
        except OSError as error:
            if error.errno not in _REFUSED:
                self._buffered.close()
                raise
            self._descriptor = -1

    @classmethod
    def open(cls, path: str) -> Self:
        """As the constructor; the form loaders take as a parameter."""
        return cls(path)

    @property
    def is_direct(self) -> bool:
        """Whether nothing was refused yet."""
        return self._descriptor >= 0

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """See ReadAt."""
        if self._descriptor < 0 or offset % ALIGNMENT or len(buffer) % ALIGNMENT or _odd(buffer):
            return self._buffered.read_into(offset, buffer)
        try:
            return os.preadv(self._descriptor, [buffer], offset)
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            # The descriptor stays open: another thread may be about to use it.
            return self._buffered.read_into(offset, buffer)

    def close(self) -> None:
        """Idempotent."""
        self._buffered.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _odd(buffer: memoryview) -> bool:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer)) % ALIGNMENT != 0
