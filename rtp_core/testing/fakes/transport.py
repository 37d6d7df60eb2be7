"""Blocks that travel through a dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future


class LoopbackTransport:
    """`api.KVTransport` among peers of one process; a peer is a name in `peers`."""

    def __init__(self, peers: Sequence[str] = ("peer",)) -> None:
        self._held: dict[str, dict[bytes, bytes]] = {peer: {} for peer in peers}

    def push(self, peer: str, keys: Sequence[bytes], blobs: Sequence[bytes]) -> Future[int]:
        """Zero for a peer that is not there."""
        done: Future[int] = Future()
        if peer in self._held:
            self._held[peer].update(zip(keys, blobs, strict=True))
        done.set_result(len(keys) if peer in self._held else 0)
        return done

    def pull(self, peer: str, keys: Sequence[bytes]) -> Future[Sequence[bytes | None]]:
        """None for what the peer lacks."""
        done: Future[Sequence[bytes | None]] = Future()
        held = self._held.get(peer, {})
        done.set_result([held.get(key) for key in keys])
        return done
