"""Prompt lookup: the tokens that followed the last time the current suffix appeared.

(Prompt lookup decoding, Saxena 2023.) An index a sequence, extended by what is new, makes a
proposal cost microseconds whatever the length.
"""

from __future__ import annotations

from collections.abc import Sequence

from rtp_core.api import Commit, Draft, DraftRow, SpeculatorNeeds

_NOTHING = Draft()


class _Index:
    """For each n-gram, where the newest occurrence that has a successor ends."""

    __slots__ = ("ends", "size")

    def __init__(self) -> None:
        self.ends: dict[tuple[int, ...], int] = {}
        self.size = 0


class NgramSpeculator:
    """Stateless but for the indexes; chain drafts only."""

    def __init__(self, min_n: int, max_n: int, max_draft_tokens: int) -> None:
        self.needs = SpeculatorNeeds(max_draft_tokens=max_draft_tokens)
        self._lengths = range(max_n, min_n - 1, -1)
        self._indexes: dict[str, _Index] = {}

    def propose(self, rows: Sequence[DraftRow]) -> Sequence[Draft]:
        """The longest suffix found wins, its most recent occurrence is copied."""
        return [self._propose(row) for row in rows]

    def observe(self, commits: Sequence[Commit]) -> None:
        """Nothing to learn: tokens are read from the rows."""

    def release(self, sequence_id: str) -> None:
        """Drop the index."""
        self._indexes.pop(sequence_id, None)

    def _propose(self, row: DraftRow) -> Draft:
        tokens = row.token_ids
        index = self._indexes.setdefault(row.sequence_id, _Index())
        self._extend(index, tokens)
        size = len(tokens)
        for length in self._lengths:
            if length >= size:
                continue
            end = index.ends.get(tuple(tokens[size - length :]))
            if end is not None:
                return Draft(tuple(tokens[end : end + row.max_tokens]))
        return _NOTHING

    def _extend(self, index: _Index, tokens: Sequence[int]) -> None:
        """Index n-grams ending before the last token, so that each has a successor."""
        for end in range(max(1, index.size), len(tokens)):
            for length in self._lengths:
                if length <= end:
                    index.ends[tuple(tokens[end - length : end])] = end
        index.size = len(tokens)
