"""What sampling remembers of a sequence: its parameters and token counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

from rtp_core.api import SequenceStart


class SequenceState:
    """Counts for penalties are kept as tokens are emitted, so a step costs what is new.

    A sequence that `takes_argmax` needs nothing of its logits but the largest one's id.
    """

    def __init__(self, start: SequenceStart, eos_token_ids: frozenset[int]) -> None:
        self.sampling = start.sampling
        self.seed = start.seed
        self.choice = start.choice
        self.num_prompt = start.num_prompt_tokens
        outputs = start.token_ids[start.num_prompt_tokens :]
        self._outputs: Counter[int] = Counter(outputs)
        self._seen: set[int] = set()
        if start.sampling.repetition_penalty != 1.0:
            self._seen.update(start.token_ids)
        stops = sorted(eos_token_ids | set(start.sampling.stop_token_ids))
        self._stops = torch.tensor(stops, dtype=torch.int64)
        self._bias = _bias(start)
        # A grammar's mask holds stop tokens back itself, unless nothing else may come.
        self._min_tokens = 0 if start.sampling.structured else start.sampling.min_tokens
        self.takes_argmax = self.plain and start.sampling.greedy and start.sampling.logprobs is None

    @property
    def plain(self) -> bool:
        """True when the logits need no processing before temperature."""
        sampling = self.sampling
        return not (sampling.has_penalties or self._bias or self._min_tokens)

    def emit(self, token_ids: Sequence[int]) -> None:
        """Tokens were drawn for good."""
        if self.sampling.has_penalties:
            self._outputs.update(token_ids)
            self._seen.update(token_ids)

    def process(self, logits: torch.Tensor, drafts: Sequence[int], position: int) -> torch.Tensor:
        """A processed copy of one row: penalties, then bias, then min_tokens.

        logits float32 [vocab]; `drafts` are the tokens before this row in the same step,
        counted as if they had been emitted; `position` is the index of the token to draw.
        """
        logits = logits.clone()
        if self.sampling.has_penalties:
            self._penalise(logits, drafts)
        if self._bias is not None:
            ids, values = self._bias
            inside = ids < logits.shape[0]
            logits[ids[inside]] += values[inside]
        if position - self.num_prompt < self._min_tokens:
            logits[self._stops[self._stops < logits.shape[0]]] = float("-inf")
        return logits

    def _penalise(self, logits: torch.Tensor, drafts: Sequence[int]) -> None:
        sampling = self.sampling
        if sampling.repetition_penalty != 1.0:
            ids = torch.tensor(sorted(self._seen.union(drafts)), dtype=torch.int64)
            values = logits[ids]
            penalty = sampling.repetition_penalty
            logits[ids] = torch.where(values > 0, values / penalty, values * penalty)
        counts = self._outputs + Counter(drafts) if drafts else self._outputs
        if counts and (sampling.presence_penalty or sampling.frequency_penalty):
            ids = torch.tensor(list(counts), dtype=torch.int64)
            times = torch.tensor(list(counts.values()), dtype=torch.float32)
            logits[ids] -= sampling.presence_penalty + sampling.frequency_penalty * times


def _bias(start: SequenceStart) -> tuple[torch.Tensor, torch.Tensor] | None:
    bias = start.sampling.logit_bias
    if not bias:
        return None
    ids = torch.tensor(list(bias), dtype=torch.int64)
    return ids, torch.tensor(list(bias.values()), dtype=torch.float32)
