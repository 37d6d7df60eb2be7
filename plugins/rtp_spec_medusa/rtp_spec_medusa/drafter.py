"""The speculator: the state of each sequence's last computed token, and chains drafted from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from rtp_core.api import (
    Commit,
    Draft,
    DraftParts,
    DraftRow,
    HiddenStates,
    SpeculatorNeeds,
    StateRow,
)
from rtp_kernels.sampling.cpu import sample
from rtp_kernels.sampling.reference import Draw
from rtp_spec_medusa.heads import Heads


class MedusaDrafter:
    """`api.Speculator` and `api.StateSpeculator`. Used by the engine thread only.

    `load` makes the heads of the engine's parts. `ids` int64: the model's id of each of the
    heads' tokens; None: they are the same.
    """

    def __init__(
        self,
        needs: SpeculatorNeeds,
        load: Callable[[DraftParts], Heads],
        ids: torch.Tensor | None,
        vocab_size: int,
    ) -> None:
        self.needs = needs
        self._load = load
        self._ids = ids
        self._vocab_size = vocab_size
        self._states: dict[str, tuple[int, torch.Tensor]] = {}
        self._heads: Heads

    @torch.inference_mode()
    def bind(self, parts: DraftParts) -> None:
        """Reads the weights. Raises ModelError when a file changed since the start."""
        self._heads = self._load(parts)

    @torch.inference_mode()
    def extend(self, rows: Sequence[StateRow], states: HiddenStates) -> None:
        """Keep the last state of each row."""
        if states.final is None:
            raise ValueError("the final hidden states were asked for and are not there")
        for row in rows:
            count = len(row.token_ids)
            if count:
                last = states.final[row.begin + count - 1].clone()
                self._states[row.sequence_id] = (row.start + count, last)

    @torch.inference_mode()
    def propose(self, rows: Sequence[DraftRow]) -> Sequence[Draft]:
        """Head i guesses token i of a chain; none depends on another's guess."""
        known = [place for place, row in enumerate(rows) if self._has_state(row)]
        drafts = [Draft()] * len(rows)
        if not known:
            return drafts
        states = torch.stack([self._states[rows[place].sequence_id][1] for place in known])
        chains: list[list[int]] = [[] for _ in known]
        most = max(rows[place].max_tokens for place in known)
        for head in range(min(self.needs.max_draft_tokens, most)):
            logits = self._heads.logits(head, states)
            tokens = self._tokens([rows[place] for place in known], logits, head)
            for chain, token in zip(chains, tokens, strict=True):
                chain.append(token)
        for place, chain in zip(known, chains, strict=True):
            drafts[place] = Draft(tuple(chain[: rows[place].max_tokens]))
        return drafts

    def observe(self, commits: Sequence[Commit]) -> None:
        """Nothing to learn: `extend` brings what was committed."""

    def release(self, sequence_id: str) -> None:
        """Forget its state."""
        self._states.pop(sequence_id, None)

    def _has_state(self, row: DraftRow) -> bool:
        length, _ = self._states.get(row.sequence_id, (0, None))
        return row.max_tokens > 0 and length == len(row.token_ids) - 1

    def _tokens(self, rows: Sequence[DraftRow], logits: torch.Tensor, head: int) -> list[int]:
        """The likeliest, or what the noise that will verify it draws."""
        best = logits.argmax(dim=-1)
        found = (best if self._ids is None else self._ids[best]).tolist()
        for place, row in enumerate(rows):
            if not row.sampling.greedy:
                found[place] = self._drawn(row, logits[place], head)
        return found

    def _drawn(self, row: DraftRow, logits: torch.Tensor, head: int) -> int:
        values = logits.cpu()
        if self._ids is not None:
            wide = torch.full((self._vocab_size,), float("-inf"))
            values = wide.index_copy_(0, self._ids, values)
        sampling, position = row.sampling, len(row.token_ids) + head
        draw = Draw(
            row.seed,
            position,
            row.choice,
            sampling.temperature,
            sampling.top_k,
            sampling.top_p,
            sampling.min_p,
        )
        return sample(values[: self._vocab_size], draw)
