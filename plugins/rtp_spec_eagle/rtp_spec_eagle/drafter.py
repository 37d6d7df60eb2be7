"""The speculator: rows of the head stored as the model commits tokens, chains drafted from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from rtp_core.api import (
    Commit,
    Draft,
    DraftParts,
    DraftRow,
    HiddenStates,
    ModelSpec,
    PlanRow,
    SpeculatorNeeds,
    StateRow,
)
from rtp_spec_eagle.draws import Draws
from rtp_spec_eagle.head import Head
from rtp_spec_eagle.sequences import Sequences, Work

MOST_HELD = 64
"""Tokens whose rows may wait for a draft before they are stored without one."""


@dataclass(frozen=True, slots=True)
class _Chain:
    """A row that is being drafted for."""

    row: DraftRow
    tokens: list[int]


class EagleDrafter:
    """`api.Speculator` and `api.StateSpeculator`. Used by the engine thread only.

    `load` makes the head of the engine's parts; `spec` describes its layer for attention.
    """

    def __init__(
        self,
        needs: SpeculatorNeeds,
        spec: ModelSpec,
        load: Callable[[DraftParts], tuple[Head, Draws]],
        block_size: int,
        device: str,
    ) -> None:
        self.needs = needs
        self.spec = spec
        self._load = load
        self._block_size = block_size
        self._device = device
        self._head: Head
        self._draws: Draws
        self._sequences: Sequences

    @torch.inference_mode()
    def bind(self, parts: DraftParts) -> None:
        """Reads the head's weights. Raises ModelError when a file changed since the start."""
        self._head, self._draws = self._load(parts)
        self._sequences = Sequences(parts.states[0], self._block_size, MOST_HELD)

    @torch.inference_mode()
    def extend(self, rows: Sequence[StateRow], states: HiddenStates) -> None:
        """Rows are stored when they fill a block; others wait for the next draft's pass."""
        if not rows:
            return
        end = max(row.begin + len(row.token_ids) for row in rows)
        fused = self._head.fused(states, 0, end)
        work: list[Work] = []
        for row in rows:
            own = fused[row.begin : row.begin + len(row.token_ids)]
            found = self._sequences.extend(row, own) if len(own) else None
            if found is not None:
                work.append(found)
        if work:
            self._run(work)

    @torch.inference_mode()
    def propose(self, rows: Sequence[DraftRow]) -> Sequence[Draft]:
        """Chains as long as the rows allow."""
        most = self.needs.max_draft_tokens
        chains: list[_Chain] = []
        work: list[Work] = []
        for row in rows:
            found = self._sequences.last(row) if row.max_tokens > 0 else None
            if found is not None:
                chains.append(_Chain(row, []))
                work.append(found)
        if chains:
            self._draft(chains, work, most)
        drafted = {chain.row.sequence_id: Draft(tuple(chain.tokens)) for chain in chains}
        return [drafted.get(row.sequence_id, Draft()) for row in rows]

    def observe(self, commits: Sequence[Commit]) -> None:
        """Nothing to learn: `extend` brings what was committed."""

    def release(self, sequence_id: str) -> None:
        """Forget its states; what is in blocks stays with them."""
        self._sequences.release(sequence_id)

    def _draft(self, chains: list[_Chain], work: list[Work], most: int) -> None:
        output = self._run(work)
        ends = torch.tensor([len(one.token_ids) for one in work], device=self._device).cumsum(0)
        output = output[ends - 1]
        for count in range(most):
            tokens = self._draws.tokens(
                [chain.row for chain in chains], self._head.logits(output), count
            )
            for chain, token in zip(chains, tokens, strict=True):
                chain.tokens.append(token)
            going = [
                place for place, chain in enumerate(chains) if chain.row.max_tokens > count + 1
            ]
            if count + 1 == most or not going:
                return
            states = self._head.fed_back(output)[torch.tensor(going, device=self._device)]
            chains = [chains[place] for place in going]
            output = self._run(
                [_next(chain, states[place : place + 1]) for place, chain in enumerate(chains)]
            )

    def _run(self, work: Sequence[Work]) -> torch.Tensor:
        """Outputs of all rows."""
        plan = self._head.attention.plan(
            [PlanRow(one.name, one.token_ids, one.start, 0, False, one.tables) for one in work]
        )
        flat = [token for one in work for token in one.token_ids]
        token_ids = torch.tensor(flat, dtype=torch.int64, device=self._device)
        states = torch.cat([one.states for one in work])
        return self._head.layer(token_ids, states, plan)


def _next(chain: _Chain, state: torch.Tensor) -> Work:
    """The row of the token drafted last, behind the sequence's tokens and earlier drafts."""
    start = len(chain.row.token_ids) + len(chain.tokens) - 1
    return Work(chain.row.sequence_id, chain.tokens[-1:], start, chain.row.block_tables, state)
