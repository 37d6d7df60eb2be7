"""A drafter that reads states, as the engine holds it: its place among the KV groups."""

from __future__ import annotations

from collections.abc import Sequence

from rtp_core.api import (
    Commit,
    Draft,
    DraftParts,
    DraftRow,
    HiddenStates,
    Speculator,
    StateRow,
    StateSpeculator,
    StepPlan,
    StepResult,
)


class StateDrafter:
    """Shows a drafter the block tables of its own groups, the first of which is `first_group`.

    Raises TypeError for a speculator without `bind` and `extend`.
    """

    def __init__(self, speculator: Speculator, first_group: int) -> None:
        if not isinstance(speculator, StateSpeculator):
            raise TypeError(f"{type(speculator).__name__} has no bind and extend")
        self._speculator: Speculator = speculator
        self._reader: StateSpeculator = speculator
        self.needs = self._speculator.needs
        self._own = slice(first_group, first_group + len(self.needs.kv_groups))

    def bind(self, parts: DraftParts) -> None:
        """Before the first step."""
        self._reader.bind(parts)

    def propose(self, rows: Sequence[DraftRow]) -> Sequence[Draft]:
        """As `Speculator`; rows have the tables of all groups."""
        return self._speculator.propose(
            [row._replace(block_tables=row.block_tables[self._own]) for row in rows]
        )

    def extend(self, rows: Sequence[StateRow], states: HiddenStates) -> None:
        """As `StateSpeculator`; rows have the tables of all groups."""
        own = [row._replace(block_tables=row.block_tables[self._own]) for row in rows]
        self._reader.extend(own, states)

    def observe(self, commits: Sequence[Commit]) -> None:
        """As `Speculator`."""
        self._speculator.observe(commits)

    def release(self, sequence_id: str) -> None:
        """As `Speculator`."""
        self._speculator.release(sequence_id)


def state_rows(plan: StepPlan, result: StepResult) -> list[StateRow]:
    """What a step committed: known tokens and accepted drafts of the rows that did not fail."""
    rows: list[StateRow] = []
    begin = 0
    for row, done in zip(plan.rows, result.rows, strict=False):
        count = len(row.token_ids) - row.num_drafts + done.num_accepted
        if row.sequence_id not in result.errors:
            tokens = row.token_ids[:count]
            rows.append(StateRow(row.sequence_id, tokens, row.start, begin, row.block_tables))
        begin += len(row.token_ids)
    return rows
