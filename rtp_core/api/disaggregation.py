"""Moving KV blocks between engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from concurrent.futures import Future

GroupDone = Callable[[int], None]
"""Called by the runner when a KV group's layers of the step are written (group index)."""


class KVTransport(Protocol):
    """Pushes or pulls cached blocks, group by group, in canonical blob form."""

    def push(self, peer: str, keys: Sequence[bytes], blobs: Sequence[bytes]) -> Future[int]:
        """Resolves to the number of blocks the peer took."""
        ...

    def pull(self, peer: str, keys: Sequence[bytes]) -> Future[Sequence[bytes | None]]:
        """None for a block the peer does not hold."""
        ...
