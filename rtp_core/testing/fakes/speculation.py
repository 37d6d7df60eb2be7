"""A drafter whose every answer the test wrote down."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rtp_core.api import Commit, Draft, DraftRow, SpeculatorNeeds


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
