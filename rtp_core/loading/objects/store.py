"""What a store of objects must do; keys are names below the model's address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from rtp_core.errors import WeightLoadError


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """`etag` changes when the content does; "" if the store tells none."""

    num_bytes: int
    etag: str


class ObjectStore(Protocol):
    """One model's objects. All methods may be called from any thread."""

    @property
    def address(self) -> str:
        """As the operator wrote it, for errors."""
        ...

    def list(self) -> Mapping[str, ObjectInfo]:
        """The model's objects by key."""
        ...

    def read(self, key: str, info: ObjectInfo, offset: int, buffer: memoryview) -> int:
        """One range, tried until patience ends; fewer bytes than asked are allowed, 0 is the end.

        Raises WeightLoadError naming object, status and remedy, also when the object is no
        longer the one that `info` describes.
        """
        ...


@dataclass(frozen=True, slots=True)
class ObjectFile:
    """A `ReadAt` on one object."""

    store: ObjectStore
    key: str
    info: ObjectInfo

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """See ReadAt."""
        wanted = buffer[: max(0, self.info.num_bytes - offset)]
        if not wanted:
            return 0
        return self.store.read(self.key, self.info, offset, wanted)

    def read_range(self, offset: int, num_bytes: int) -> bytes:
        """So many bytes; WeightLoadError if the object ends before."""
        data = memoryview(bytearray(num_bytes))
        done = 0
        while done < len(data):
            count = self.read_into(offset + done, data[done:])
            if not count:
                raise WeightLoadError(
                    f"ends before {offset + num_bytes} of {self.info.num_bytes} bytes",
                    file=f"{self.store.address}/{self.key}",
                )
            done += count
        return bytes(data)

    def close(self) -> None:
        """Nothing is held."""


def changed(where: str, before: str, after: str) -> WeightLoadError:
    """The object is another one than when loading began."""
    return WeightLoadError(
        f"changed while it was read: its ETag was {before}, now it is {after}",
        file=where,
        remedy="start again when the upload has ended",
    )
