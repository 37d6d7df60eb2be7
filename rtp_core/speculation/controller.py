"""Who drafts for which row; drafters that fail are dropped, requests go on."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import index

from rtp_core.api import Commit, Draft, DraftRow, HiddenStates, Speculator, StepPlan, StepResult
from rtp_core.speculation.state_drafter import StateDrafter, state_rows

log = logging.getLogger("rtp.speculation")
MAX_BAD_DRAFTS = 8
_NOTHING: tuple[str, Draft] = ("", Draft())


@dataclass(slots=True)
class SpeculationStats:
    """Counts since start; `method_tokens` counts accepted drafts by method."""

    drafts: int = 0
    draft_tokens: int = 0
    accepted_tokens: int = 0
    method_tokens: Counter[str] = field(default_factory=Counter)


class SpeculationController:
    """Asks the speculators in order of configuration; the first that drafts a row wins it."""

    def __init__(
        self,
        speculators: Sequence[tuple[str, Speculator]],
        max_draft_tokens: int,
        vocab_size: int,
        on_error: Callable[[str, Exception], None],
    ) -> None:
        self._speculators = dict(speculators)
        self._max = max_draft_tokens
        self._vocab_size = vocab_size
        self._on_error = on_error
        self._bad: Counter[str] = Counter()
        self._method: dict[str, str] = {}
        self.stats = SpeculationStats()

    @property
    def active(self) -> bool:
        """False when no drafter is configured or all were dropped."""
        return bool(self._speculators)

    def propose(self, rows: Sequence[DraftRow]) -> list[tuple[str, Draft]]:
        """(method, draft) a row, in order; method "" where nobody drafted."""
        proposals = [_NOTHING] * len(rows)
        for name, speculator in list(self._speculators.items()):
            places = [place for place, found in enumerate(proposals) if not found[0]]
            if not places:
                break
            drafts = self._ask(name, speculator, [rows[place] for place in places])
            for place, draft in zip(places, drafts, strict=True):
                checked = self._check(name, draft, rows[place])
                if checked.token_ids:
                    proposals[place] = (name, checked)
        for row, (name, _) in zip(rows, proposals, strict=True):
            if name:
                self._method[row.sequence_id] = name
        return proposals

    def would_draft(self, rows: Sequence[DraftRow]) -> bool:
        """Whether anybody has a draft for any of these rows; nothing is counted.

        Who reads states always has: it is not asked before its states are there.
        """
        if any(isinstance(one, StateDrafter) for one in self._speculators.values()):
            return bool(rows)
        return any(
            draft.token_ids
            for name, speculator in list(self._speculators.items())
            for draft in (self._ask(name, speculator, rows) if rows else ())
        )

    def observe(self, commits: Sequence[Commit]) -> None:
        """Count, and tell the drafters."""
        for commit in commits:
            method = self._method.pop(commit.sequence_id, None)
            if commit.num_drafted and method is not None:
                self.stats.drafts += 1
                self.stats.draft_tokens += commit.num_drafted
                self.stats.accepted_tokens += commit.num_accepted
                self.stats.method_tokens[method] += commit.num_accepted
        for name, speculator in list(self._speculators.items()):
            try:
                speculator.observe(commits)
            except Exception as error:  # noqa: BLE001 (a drafter may not stop the engine)
                self._drop(name, error)

    def extend(self, plan: StepPlan, result: StepResult, states: HiddenStates) -> None:
        """Hand states of what a step committed to the drafters that read them."""
        readers = [
            (name, one) for name, one in self._speculators.items() if isinstance(one, StateDrafter)
        ]
        rows = state_rows(plan, result) if readers else []
        for name, reader in readers:
            try:
                reader.extend(rows, states)
            except Exception as error:  # noqa: BLE001 (a drafter may not stop the engine)
                self._drop(name, error)

    def release(self, sequence_id: str) -> None:
        """A sequence left the batch."""
        self._method.pop(sequence_id, None)
        for name, speculator in list(self._speculators.items()):
            try:
                speculator.release(sequence_id)
            except Exception as error:  # noqa: BLE001 (a drafter may not stop the engine)
                self._drop(name, error)

    def _ask(self, name: str, speculator: Speculator, rows: Sequence[DraftRow]) -> Sequence[Draft]:
        try:
            drafts = speculator.propose(rows)
            if len(drafts) != len(rows):
                raise ValueError(f"{len(drafts)} drafts for {len(rows)} rows")  # noqa: TRY301
        except Exception as error:  # noqa: BLE001 (a drafter may not stop the engine)
            self._drop(name, error)
            return [Draft()] * len(rows)
        return drafts

    def _check(self, name: str, draft: Draft, row: DraftRow) -> Draft:
        """Clamp to what fits; a malformed draft counts against its drafter."""
        try:
            return _well_formed(draft, min(self._max, row.max_tokens), self._vocab_size)
        except Exception as error:  # noqa: BLE001 (a drafter may return anything)
            self._bad[name] += 1
            if self._bad[name] >= MAX_BAD_DRAFTS and name in self._speculators:
                self._drop(name, error)
            return Draft()

    def _drop(self, name: str, error: Exception) -> None:
        self._speculators.pop(name, None)
        self._on_error(name, error)


def _well_formed(draft: Draft, limit: int, vocab_size: int) -> Draft:
    """The first `limit` tokens as plain integers. Raises whatever is wrong with the draft."""
    tokens = tuple(index(token) for token in draft.token_ids[:limit])
    if not all(0 <= token < vocab_size for token in tokens):
        raise ValueError(f"malformed draft: ids must lie in 0 … {vocab_size - 1}")
    if draft.parents is None:
        return Draft(tokens)
    parents = tuple(index(parent) for parent in draft.parents[:limit])
    if len(parents) != len(tokens):
        raise ValueError(f"malformed draft: {len(parents)} parents for {len(tokens)} tokens")
    if not all(-1 <= parent < child for child, parent in enumerate(parents)):
        raise ValueError("malformed draft: a parent comes before its child, -1 for none")
    return Draft(tokens, parents)
