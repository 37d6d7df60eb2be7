"""Log-probabilities of the prompt's own tokens, a slice of logits at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch

from rtp_core.api import PlanRow, SequenceStart, TokenLogprob

MAX_ELEMENTS = 2**24
"""Of the logits that are there at once: 64 MiB."""


class Span(NamedTuple):
    """`targets` are the tokens that follow the step's tokens from `first` on; `top` is how many
    alternatives each is to have."""

    sequence_id: str
    first: int
    targets: tuple[int, ...]
    top: int


class _Slice(NamedTuple):
    """On the way to the host: chosen [n], and ids and values of the best [n, top]."""

    chosen: torch.Tensor
    top_ids: torch.Tensor
    top_values: torch.Tensor


class PromptScores:
    """Knows the sequences in the batch whose prompts are scored; used by the engine thread."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._starts: dict[str, SequenceStart] = {}

    def start(self, start: SequenceStart) -> None:
        """A sequence joins the batch (again, after a preemption)."""
        if start.choice == 0 and start.sampling.prompt_logprobs is not None:
            self._starts[start.sequence_id] = start

    def release(self, sequence_id: str) -> None:
        """It left; unknown ids are ignored."""
        self._starts.pop(sequence_id, None)

    def spans(self, rows: Sequence[PlanRow]) -> list[Span]:
        """What is to be scored in a step whose tokens lie in the order of `rows`."""
        if not self._starts:
            return []
        spans: list[Span] = []
        first = 0
        for row in rows:
            start = self._starts.get(row.sequence_id)
            if start is not None:
                end = min(row.start + len(row.token_ids) + 1, start.num_prompt_tokens)
                targets = start.token_ids[row.start + 1 : end]
                if targets:
                    top = start.sampling.prompt_logprobs or 0
                    spans.append(Span(row.sequence_id, first, targets, top))
            first += len(row.token_ids)
        return spans

    def score(
        self,
        spans: Sequence[Span],
        hidden: torch.Tensor,
        logits: Callable[[torch.Tensor], torch.Tensor],
    ) -> Callable[[], dict[str, tuple[TokenLogprob, ...]]]:
        """Queue the work; what reads it, by sequence, once the device is done.

        hidden [tokens of the step, width]; `logits` makes float32 [rows, padded vocab] of some.
        """
        queued = [(span, list(self._slices(span, hidden, logits))) for span in spans]
        return lambda: {
            span.sequence_id: tuple(
                entry
                for (targets, _), part in zip(self._cuts(span), parts, strict=True)
                for entry in _entries(targets, part)
            )
            for span, parts in queued
        }

    def _cuts(self, span: Span) -> Iterator[tuple[tuple[int, ...], int]]:
        """Targets and first token of each slice."""
        most = max(1, MAX_ELEMENTS // self._vocab_size)
        for at in range(0, len(span.targets), most):
            yield span.targets[at : at + most], span.first + at

    def _slices(
        self,
        span: Span,
        hidden: torch.Tensor,
        logits: Callable[[torch.Tensor], torch.Tensor],
    ) -> Iterator[_Slice]:
        for targets, first in self._cuts(span):
            rows = logits(hidden[first : first + len(targets)])[:, : self._vocab_size].float()
            total = rows.logsumexp(dim=-1, keepdim=True)
            ids = torch.tensor(targets, dtype=torch.int64).to(rows.device, non_blocking=True)
            best = rows.topk(span.top, dim=-1)
            yield _Slice(
                _to_host((rows.gather(1, ids[:, None]) - total)[:, 0]),
                _to_host(best.indices),
                _to_host(best.values - total),
            )


def _entries(targets: Sequence[int], part: _Slice) -> Iterator[TokenLogprob]:
    found = zip(
        targets,
        part.chosen.tolist(),
        part.top_ids.tolist(),
        part.top_values.tolist(),
        strict=True,
    )
    for token, chosen, ids, values in found:
        yield TokenLogprob(token, chosen, tuple(zip(ids, values, strict=True)))


def _to_host(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type == "cpu":
        return tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
