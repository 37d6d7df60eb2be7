"""How far the head has come with each sequence.

The row of token i reads the model's state of token i - 1 and lies in slot i; token 0 has none.
So a slot depends on tokens up to its own, and blocks are shared like the model's. The state that
the first row of a block reads lies before the block: it is kept with the block it ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from rtp_core.api import DraftRow, StateRow


@dataclass(frozen=True, slots=True)
class Work:
    """Rows of the head for the slots from `start` on, and the states they read."""

    name: str
    token_ids: Sequence[int]
    start: int
    tables: tuple[Sequence[int], ...]
    states: torch.Tensor


@dataclass(slots=True)
class _Progress:
    """Slots below `done` are stored. `tokens` are those of the slots from there on, `states` in
    parts those of the tokens from `done` - 1 on: one more, until the next token is drawn."""

    done: int
    tokens: list[int] = field(default_factory=list)
    states: list[torch.Tensor] = field(default_factory=list)

    def take(self, name: str, tables: tuple[Sequence[int], ...]) -> Work:
        """Rows of all tokens held. What is left is the state that the next one reads, if any."""
        tokens, states = self.tokens, torch.cat(self.states)
        work = Work(name, tokens, self.done, tables, states[: len(tokens)])
        rest = states[len(tokens) :]
        self.done += len(tokens)
        self.tokens, self.states = [], [rest.clone()] if len(rest) else []
        return work


class Sequences:
    """`block_states` [blocks, hidden_size]: for each block, the state of its last token."""

    def __init__(self, block_states: torch.Tensor, block_size: int, most_held: int) -> None:
        self._block_states = block_states
        self._block_size = block_size
        self._most_held = most_held
        self._progress: dict[str, _Progress] = {}

    def extend(self, row: StateRow, states: torch.Tensor) -> Work | None:
        """Hold the states of a row's tokens; the rows to store now, once a block is full."""
        progress = self._progress.get(row.sequence_id) or self._begin(row)
        end, size = row.start + len(row.token_ids), self._block_size
        self._keep_last_states(row, states)
        progress.states.append(states)
        known = progress.done + len(progress.tokens) - row.start
        progress.tokens.extend(row.token_ids[known:])
        full = progress.done < end // size * size
        if not progress.tokens or not (full or len(progress.tokens) > self._most_held):
            progress.states[-1] = states.clone()
            return None
        return progress.take(row.sequence_id, row.block_tables)

    def last(self, row: DraftRow) -> Work | None:
        """Rows up to that of the sequence's last token; None if its states are not there."""
        progress = self._progress.get(row.sequence_id)
        length = len(row.token_ids)
        if progress is None or progress.done + len(progress.tokens) != length - 1:
            return None
        progress.tokens.append(row.token_ids[-1])
        return progress.take(row.sequence_id, row.block_tables)

    def release(self, name: str) -> None:
        """Unknown ones are ignored."""
        self._progress.pop(name, None)

    def _begin(self, row: StateRow) -> _Progress:
        """A sequence joins, perhaps behind blocks that it found in the cache."""
        progress = self._progress[row.sequence_id] = _Progress(max(1, row.start))
        if row.start:
            block = row.block_tables[0][row.start // self._block_size - 1]
            progress.states.append(self._block_states[block : block + 1].clone())
        return progress

    def _keep_last_states(self, row: StateRow, states: torch.Tensor) -> None:
        size, end = self._block_size, row.start + len(row.token_ids)
        first = row.start // size
        count = end // size - first
        if count:
            blocks = torch.tensor(row.block_tables[0][first : first + count], device=states.device)
            offset = size - 1 - row.start % size
            self._block_states[blocks] = states[offset::size][:count]
