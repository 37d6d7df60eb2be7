"""Where the sequences of the batch live on the device, and the host's mirror of their tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rtp_core.api import PlanRow


class BatchSlots:
    """One slot a sequence, from the plan that starts it to the plan that releases it.

    Block tables only grow while a sequence holds its slot, so a step adds what is new. Beyond
    their ends stands the group's `spare` block, which takes what is written there.
    """

    def __init__(self, num_slots: int, max_blocks: int, spare: Sequence[int]) -> None:
        num_groups = len(spare)
        self._spare = spare
        self._free = list(range(num_slots - 1, -1, -1))
        self._slots: dict[str, int] = {}
        self._tables = np.zeros((num_groups, num_slots, max_blocks), dtype=np.int32)
        self._lengths = np.zeros((num_groups, num_slots), dtype=np.int64).tolist()

    def __getitem__(self, sequence_id: str) -> int:
        return self._slots[sequence_id]

    def take(self, sequence_id: str) -> int:
        """A slot with empty tables."""
        slot = self._free.pop()
        self._slots[sequence_id] = slot
        for group, lengths in enumerate(self._lengths):
            lengths[slot] = 0
            self._tables[group, slot] = self._spare[group]
        return slot

    def give(self, sequence_id: str) -> int | None:
        """The slot that is free now; None for an unknown sequence."""
        slot = self._slots.pop(sequence_id, None)
        if slot is not None:
            self._free.append(slot)
        return slot

    def extend(self, row: PlanRow, slot: int) -> None:
        """Take over what was added to the row's block tables."""
        for group, table in enumerate(row.block_tables):
            lengths = self._lengths[group]
            known = lengths[slot]
            if len(table) > known:
                self._tables[group, slot, known : len(table)] = table[known:]
                lengths[slot] = len(table)

    def gather(self, group: int, slots: Sequence[int], out: np.ndarray) -> None:
        """Tables of `slots` into out int32 [rows, width], cut or padded to its width."""
        np.take(self._tables[group, :, : out.shape[1]], slots, axis=0, out=out, mode="clip")
