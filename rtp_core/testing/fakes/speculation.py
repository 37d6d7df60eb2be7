"""Drafters: one whose every answer the test wrote down, one that keeps states in blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rtp_core.api import (
    Commit,
    Draft,
    DraftParts,
    DraftRow,
    HiddenStates,
    KVGroup,
    KVPlane,
    SpeculatorNeeds,
    StateRow,
)

if TYPE_CHECKING:
    import torch


class ScriptedSpeculator:
    """`api.Speculator` that asks `answer` for each row and keeps what it was told.

    Without `answer` it drafts the last token again, as often as fits.
    """

    def __init__(
        self, max_draft_tokens: int = 4, answer: Callable[[DraftRow], Draft] | None = None
    ) -> None:
        self.needs = SpeculatorNeeds(max_draft_tokens=max_draft_tokens)
        self._answer = answer or self._again
        self.commits: list[Commit] = []
        self.released: list[str] = []

    def propose(self, rows: Sequence[DraftRow]) -> Sequence[Draft]:
        """One answer a row."""
        return [self._answer(row) for row in rows]

    def observe(self, commits: Sequence[Commit]) -> None:
        """Keep the last hundred."""
        self.commits = [*self.commits, *commits][-100:]

    def release(self, sequence_id: str) -> None:
        """Keep the last hundred."""
        self.released = [*self.released, sequence_id][-100:]

    def _again(self, row: DraftRow) -> Draft:
        count = min(row.max_tokens, self.needs.max_draft_tokens)
        return Draft((row.token_ids[-1],) * count)


class NearestSpeculator:
    """`api.StateSpeculator` that drafts the token whose head row is most like the last state.

    It keeps the last state of each block with the block, and nothing in its slots.
    """

    def __init__(self, max_draft_tokens: int = 4, hidden_size: int = 32) -> None:
        plane = KVPlane(1, 2, "float32")
        group = KVGroup("nearest", (0,), (plane, plane), first_key=1, block_state=hidden_size)
        self.needs = SpeculatorNeeds(max_draft_tokens, wants_final_hidden=True, kv_groups=(group,))
        self._last: dict[str, torch.Tensor] = {}
        self._parts: DraftParts

    def bind(self, parts: DraftParts) -> None:
        """Keep them."""
        self._parts = parts

    def extend(self, rows: Sequence[StateRow], states: HiddenStates) -> None:
        """Keep the last state of every row, and of every block that is full."""
        if states.final is None:
            raise ValueError("no states were given")
        for row in rows:
            end = row.start + len(row.token_ids)
            self._last[row.sequence_id] = states.final[row.begin + len(row.token_ids) - 1].clone()
            for place in range(row.start, end):
                if (place + 1) % 16 == 0:
                    block = row.block_tables[0][place // 16]
                    self._parts.states[0][block] = states.final[row.begin + place - row.start]

    def propose(self, rows: Sequence[DraftRow]) -> Sequence[Draft]:
        """One token a row; none for a row without a state."""
        return [self._propose(row) for row in rows]

    def observe(self, commits: Sequence[Commit]) -> None:
        """Nothing to learn."""

    def release(self, sequence_id: str) -> None:
        """Forget the state."""
        self._last.pop(sequence_id, None)

    def _propose(self, row: DraftRow) -> Draft:
        state = self._last.get(row.sequence_id)
        if state is None or not row.max_tokens:
            return Draft()
        return Draft((int((self._parts.model.head_rows() @ state).argmax()),))
