"""Positioned reads: the seam between loaders and storage."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Protocol, Self


class ReadAt(Protocol):
    """One open file. `read_into` may return fewer bytes than asked; 0 means the end."""

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill the start of `buffer` from `offset`; thread-safe."""
        ...

    def close(self) -> None:
        """Give the file back."""
        ...


class LocalFile:
    """`preadv` on a file descriptor; releases the interpreter lock while it waits."""

    def __init__(self, path: str, *, scattered: bool = False) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if scattered and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    @classmethod
    def open(cls, path: str) -> Self:
        """As the constructor; the form loaders take as a parameter."""
        return cls(path)

    @classmethod
    def scattered(cls, path: str) -> Self:
        """For small reads here and there: the system reads nothing ahead of them."""
        return cls(path, scattered=True)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """See ReadAt."""
        return os.preadv(self._descriptor, [buffer], offset)

    def close(self) -> None:
        """Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
