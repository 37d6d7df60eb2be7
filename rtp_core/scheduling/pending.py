"""Blocks being computed now, so that equal prompts in flight are computed once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rtp_core.kv.prefix import Prefix

MIN_SHARED_BLOCKS = 2


class PendingBlocks:
    """prefix -> the running sequence whose prefill will publish it.

    A claim ends when the block is published or its owner leaves the batch, so whoever waits
    for it is free again then: waiting cannot outlast the owner.
    """

    def __init__(self) -> None:
        self._owner: dict[Prefix, str] = {}

    def __len__(self) -> int:
        return len(self._owner)

    def computed_elsewhere(self, chain: Sequence[Prefix], first: int) -> bool:
        """Whether the blocks a prompt lacks next are being computed; one alone is no reason."""
        if not self._owner:
            return False
        wanted = chain[first : first + MIN_SHARED_BLOCKS]
        return len(wanted) == MIN_SHARED_BLOCKS and all(one in self._owner for one in wanted)

    def claim(self, sequence_id: str, prefixes: Iterable[Prefix]) -> None:
        """`sequence_id` computes these blocks from now on, but for those claimed already."""
        for prefix in prefixes:
            self._owner.setdefault(prefix, sequence_id)

    def settle(self, sequence_id: str, prefixes: Iterable[Prefix]) -> None:
        """Its claims on these are over: others can find the blocks, or nobody computes them."""
        for prefix in prefixes:
            if self._owner.get(prefix) == sequence_id:
                del self._owner[prefix]
