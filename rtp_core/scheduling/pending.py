"""Blocks being computed now, so that equal prompts in flight are computed once."""

from __future__ import annotations

from collections.abc import Sequence

from rtp_core.kv.cache import SequenceBlocks

MIN_SHARED_BLOCKS = 2


class PendingBlocks:
    """key -> the running sequence whose prefill will publish it.

    A claim ends when the block is published or its owner leaves the batch, so whoever waits
    for it is free again then: waiting cannot outlast the owner.
    """

    def __init__(self) -> None:
        self._owner: dict[bytes, str] = {}
        self._claims: dict[str, list[bytes]] = {}

    def computed_elsewhere(self, keys: Sequence[bytes], first: int) -> bool:
        """Whether the next blocks a prompt lacks are all being computed by one sequence."""
        wanted = keys[first : first + MIN_SHARED_BLOCKS]
        if len(wanted) < MIN_SHARED_BLOCKS:
            return False
        owners = {self._owner.get(key) for key in wanted}
        return len(owners) == 1 and None not in owners

    def claim(self, sequence_id: str, keys: Sequence[bytes]) -> None:
        """`sequence_id` computes these blocks from now on."""
        mine = [key for key in keys if key not in self._owner]
        for key in mine:
            self._owner[key] = sequence_id
        if mine:
            self._claims[sequence_id] = mine

    def published(self, sequence_id: str, blocks: SequenceBlocks) -> None:
        """Claims on blocks that others can find now are over."""
        if sequence_id not in self._claims:
            return
        done = set(blocks.keys[: blocks.num_published])
        left = []
        for key in self._claims[sequence_id]:
            if key in done:
                del self._owner[key]
            else:
                left.append(key)
        self._claims[sequence_id] = left
        if not left:
            del self._claims[sequence_id]

    def forget(self, sequence_id: str) -> None:
        """The owner left; nobody computes its blocks any more."""
        for key in self._claims.pop(sequence_id, ()):
            self._owner.pop(key, None)
