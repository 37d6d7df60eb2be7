"""From logits to tokens: processing, drawing, and verification of drafts.

Verification is drafter-invariant matching (arXiv 2408.07978): each position's token is drawn
as plain decoding would draw it, with noise keyed by seed, position and choice; a draft is
accepted iff it is that token. So drafts change the number of steps, never the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from rtp_core.api import UNUSABLE_LOGITS, PlanRow, RowResult, SequenceStart, TokenLogprob
from rtp_core.sampling.state import SequenceState
from rtp_core.text.structured.masks import GrammarMasks, Masks
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
        grammars: GrammarMasks | None = None,
    ) -> None:
        self._vocab_size = vocab_size
        self._eos = eos_token_ids
        self._draw = draw
        self._grammars = grammars
        self._states: dict[str, SequenceState] = {}

    def start(self, start: SequenceStart) -> None:
        """A sequence joins the batch (again, after a preemption)."""
        self._states[start.sequence_id] = SequenceState(start, self._eos)
        if self._grammars is not None:
            self._grammars.start(start)

    def release(self, sequence_id: str) -> None:
        """It left; unknown ids are ignored."""
        self._states.pop(sequence_id, None)
        if self._grammars is not None:
            self._grammars.release(sequence_id)

    def prepare(self, rows: Sequence[PlanRow]) -> None:
        """These rows are about to be computed: masks are made meanwhile."""
        if self._grammars is not None:
            self._grammars.begin(rows)

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
        masks = Masks()
        if self._grammars is not None:
            masks = self._grammars.collect(rows) or masks
        results: list[RowResult] = []
        errors = dict(masks.errors)
        at = 0
        for row in rows:
            name, count = row.sequence_id, 1 + row.num_drafts
            here = slice(at, at + count)
            at += count
            mask = masks.ready.get(name)
            if name in errors or name in masks.late:
                results.append(RowResult(name, ()))
            elif not all(usable[here]):
                errors[name] = UNUSABLE_LOGITS
                results.append(RowResult(name, ()))
            elif count == 1 and mask is None and self._states[name].takes_argmax:
                results.append(RowResult(name, (winners[at - 1],)))
            else:
                try:
                    results.append(self._verify(row, logits[here], winners[here], mask))
                except _NothingLeftError as error:
                    errors[name] = str(error)
                    results.append(RowResult(name, ()))
        return results, errors

    def _verify(
        self,
        row: PlanRow,
        logits: torch.Tensor,
        winners: Sequence[int],
        masks: np.ndarray | None,
    ) -> RowResult:
        state = self._states[row.sequence_id]
        known = len(row.token_ids) - row.num_drafts
        drafts = row.token_ids[known:]
        position = row.start + known
        emitted: list[int] = []
        at, node = 0, -1
        while True:
            mask = None if masks is None else masks[at]
            values, winner = logits[at], winners[at]
            token = self._token(state, values, winner, mask, emitted, position + len(emitted))
            emitted.append(token)
            node = _child(drafts, row.tree_parents, node, token)
            if node < 0:
                break
            at = node + 1
        complete = False
        if masks is not None:
            emitted, complete = self._advance(row.sequence_id, emitted)
        state.emit(emitted)
        logprobs = self._logprobs(state, row, logits, emitted)
        return RowResult(row.sequence_id, tuple(emitted), len(emitted) - 1, logprobs, complete)

    def _advance(self, sequence_id: str, emitted: list[int]) -> tuple[list[int], bool]:
        """Those of the tokens that count under the grammar, and whether it is complete."""
        if self._grammars is None:
            return emitted, False
        done = self._grammars.advance(sequence_id, emitted)
        if done.error is not None:
            raise _NothingLeftError(done.error)
        return emitted[: done.num_tokens], done.complete

    def _token(
        self,
        state: SequenceState,
        logits: torch.Tensor,
        winner: int,
        mask: np.ndarray | None,
        drafts: Sequence[int],
        position: int,
    ) -> int:
        sampling = state.sampling
        if not state.plain:
            logits = state.process(logits, drafts, position)
        elif sampling.greedy and mask is None:
            return winner
        if mask is not None:
            logits = allowed(logits, mask)
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


class _NothingLeftError(Exception):
    """Why no token can be drawn of a row."""


def allowed(logits: torch.Tensor, mask: np.ndarray) -> torch.Tensor:
    """A copy of float32 [vocab] with -inf where the packed mask has no bit."""
    bits = np.unpackbits(mask.view(np.uint8), count=len(logits), bitorder="little")
    masked = logits.masked_fill(torch.from_numpy(bits) == 0, float("-inf"))
    if not torch.isfinite(masked.max()):
        raise _NothingLeftError(UNUSABLE_LOGITS)
    return masked


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
