"""What a batch of draws means: row by row, by `reference`, with the slots' state in Python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rtp_kernels.sampling.record import SlotEntry
from rtp_kernels.sampling.reference import Draw, sample


class SlotState:
    """A sequence and the tokens drawn for it so far."""

    def __init__(self, entry: SlotEntry) -> None:
        self.entry = entry
        self.drawn = Counter(entry.output_ids)

    def process(
        self, logits: torch.Tensor, position: int, earlier: Sequence[int] = ()
    ) -> torch.Tensor:
        """A processed copy of float32 [vocab]: penalties, bias, min_tokens, in this order.

        `earlier` are drafts before the row, counted as if drawn.
        """
        entry, logits = self.entry, logits.clone()
        inside = len(logits)
        if entry.penalised:
            self._penalise(logits, self.drawn + Counter(earlier))
        for token, more in entry.bias.items():
            if token < inside:
                logits[token] += more
        if position - entry.num_prompt < entry.min_tokens:
            logits[[token for token in entry.stop_ids if token < inside]] = float("-inf")
        return logits

    def draw(self, position: int) -> Draw:
        """Its draw of the token at `position`."""
        entry = self.entry
        return Draw(
            entry.seed, position, entry.choice, entry.temperature, entry.top_k, entry.top_p,
            entry.min_p,
        )  # fmt: skip

    def _penalise(self, logits: torch.Tensor, drawn: Counter[int]) -> None:
        entry = self.entry
        if entry.repetition_penalty != 1.0:
            ids = sorted({*entry.prompt_ids, *drawn})
            ids = torch.tensor([i for i in ids if i < len(logits)], dtype=torch.int64)
            values, penalty = logits[ids], entry.repetition_penalty
            logits[ids] = torch.where(values > 0, values / penalty, values * penalty)
        if drawn:
            ids = torch.tensor(list(drawn), dtype=torch.int64)
            times = torch.tensor(list(drawn.values()), dtype=torch.float32)
            logits[ids] -= entry.presence_penalty + entry.frequency_penalty * times


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one step: the state and position of each."""

    states: Sequence[SlotState | None]
    positions: Sequence[int]


def usable(logits: torch.Tensor) -> bool:
    """Whether a row of raw logits has no NaN and a finite maximum."""
    return bool(torch.isfinite(logits.max()))


def draw(
    logits: torch.Tensor, rows: Rows, vocab_size: int, *, commits: bool = True
) -> list[int | None]:
    """Tokens of float32 [rows, padded vocab]; None where the row is unusable or has no state."""
    tokens: list[int | None] = []
    for values, state, position in zip(logits, rows.states, rows.positions, strict=True):
        token = None
        if state is not None and usable(values[:vocab_size]):
            token = sample(state.process(values[:vocab_size], position), state.draw(position))
            if commits:
                state.drawn[token] += 1
        tokens.append(token)
    return tokens


def verify(
    logits: torch.Tensor,
    state: SlotState,
    position: int,
    drafts: Sequence[int],
    parents: Sequence[int],
) -> list[int]:
    """Tokens one sequence emits: logits float32 [1 + drafts, vocab], parents -1 at the root."""
    emitted: list[int] = []
    node = -1
    while True:
        place = position + len(emitted)
        emitted.append(sample(state.process(logits[node + 1], place, emitted), state.draw(place)))
        for index, (draft, parent) in enumerate(zip(drafts, parents, strict=True)):
            if parent == node and draft == emitted[-1]:
                node = index
                break
        else:
            break
    state.drawn.update(emitted)
    return emitted
