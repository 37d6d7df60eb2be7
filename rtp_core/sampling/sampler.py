"""From logits to tokens: processing, drawing, and verification of drafts.

Verification is drafter-invariant matching (arXiv 2408.07978): each position's token is drawn
as plain decoding would draw it, with noise keyed by seed, position and choice; a draft is
accepted iff it is that token. So drafts change the number of steps, never the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from rtp_core.api import UNUSABLE_LOGITS, PlanRow, RowResult, SequenceStart, TokenLogprob
from rtp_core.sampling.state import SequenceState
from rtp_kernels.sampling.best import best
from rtp_kernels.sampling.cpu import sample as draw_token
from rtp_kernels.sampling.reference import Draw


class Sampler:
    """Keeps the state of the sequences in the batch; used by the engine thread only."""

    def __init__(
        self,
        vocab_size: int,
        eos_token_ids: frozenset[int],
        draw: Callable[[torch.Tensor, Draw], int] = draw_token,
    ) -> None:
        self._vocab_size = vocab_size
        self._eos = eos_token_ids
        self._draw = draw
        self._states: dict[str, SequenceState] = {}

    def start(self, start: SequenceStart) -> None:
        """A sequence joins the batch (again, after a preemption)."""
        self._states[start.sequence_id] = SequenceState(start, self._eos)

    def release(self, sequence_id: str) -> None:
        """It left; unknown ids are ignored."""
        self._states.pop(sequence_id, None)

    def sample(
        self, rows: Sequence[PlanRow], logits: torch.Tensor
    ) -> tuple[list[RowResult], dict[str, str]]:
        """float32 logits [sum(1 + num_drafts), padded vocab]: rows of each PlanRow together.

        Row i of a sequence predicts the token after its draft i. Returns one result a row
        and, by sequence, why it must end when its logits are unusable.
        """
        logits = logits[:, : self._vocab_size]
        values, ids = best(logits)
        usable = torch.isfinite(values).tolist()
        winners = ids.tolist()
        results: list[RowResult] = []
        errors: dict[str, str] = {}
        at = 0
        for row in rows:
            count = 1 + row.num_drafts
            here = slice(at, at + count)
            at += count
            if not all(usable[here]):
                errors[row.sequence_id] = UNUSABLE_LOGITS
                results.append(RowResult(row.sequence_id, ()))
                continue
            if count == 1 and self._states[row.sequence_id].takes_argmax:
                results.append(RowResult(row.sequence_id, (winners[at - 1],)))
                continue
            results.append(self._verify(row, logits[here], winners[here]))
        return results, errors

    def _verify(self, row: PlanRow, logits: torch.Tensor, winners: Sequence[int]) -> RowResult:
        state = self._states[row.sequence_id]
        known = len(row.token_ids) - row.num_drafts
        drafts = row.token_ids[known:]
        position = row.start + known
        emitted: list[int] = []
        at, node = 0, -1
        while True:
            token = self._token(state, logits[at], winners[at], emitted, position + len(emitted))
            emitted.append(token)
            node = _child(drafts, row.tree_parents, node, token)
            if node < 0:
                break
            at = node + 1
        state.emit(emitted)
        logprobs = self._logprobs(state, row, logits, emitted)
        return RowResult(row.sequence_id, tuple(emitted), len(emitted) - 1, logprobs)

    def _token(
        self,
        state: SequenceState,
        logits: torch.Tensor,
        winner: int,
        drafts: Sequence[int],
        position: int,
    ) -> int:
        sampling = state.sampling
        if state.plain:
            if sampling.greedy:
                return winner
        else:
            logits = state.process(logits, drafts, position)
        draw = Draw(
            state.seed,
            position,
            state.choice,
            sampling.temperature,
            sampling.top_k,
            sampling.top_p,
            sampling.min_p,
        )
        return self._draw(logits, draw)

    def _logprobs(
        self,
        state: SequenceState,
        row: PlanRow,
        logits: torch.Tensor,
        emitted: Sequence[int],
    ) -> tuple[TokenLogprob, ...] | None:
        count = state.sampling.logprobs
        if count is None:
            return None
        rows = _path(row, emitted)
        values = torch.log_softmax(logits[rows], dim=-1)
        found = []
        for token, row_values in zip(emitted, values, strict=True):
            top = row_values.topk(count) if count else None
            pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True) if top else ()
            found.append(TokenLogprob(token, float(row_values[token]), tuple(pairs)))
        return tuple(found)


def _child(drafts: Sequence[int], parents: Sequence[int] | None, node: int, token: int) -> int:
    """Index of the draft below `node` that equals `token`, or -1."""
    if parents is None:
        follows = node + 1
        return follows if follows < len(drafts) and drafts[follows] == token else -1
    for index, (draft, parent) in enumerate(zip(drafts, parents, strict=True)):
        if parent == node and draft == token:
            return index
    return -1


def _path(row: PlanRow, emitted: Sequence[int]) -> list[int]:
    """Rows of logits the emitted tokens were drawn from."""
    drafts = row.token_ids[len(row.token_ids) - row.num_drafts :]
    rows, node = [0], -1
    for token in emitted[:-1]:
        node = _child(drafts, row.tree_parents, node, token)
        rows.append(node + 1)
    return rows
