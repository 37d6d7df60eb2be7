"""From a head's logits to drafted tokens.

A sampled request draws with the noise that will verify its draft: two distributions sampled with
one noise agree more often than a draw agrees with the likeliest token (arXiv 2408.07978).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rtp_core.api import DraftRow
from rtp_kernels.sampling.cpu import sample
from rtp_kernels.sampling.reference import Draw


class Draws:
    """`target_ids` int64 [draft vocabulary], the model's id of each of the head's; None: same."""

    def __init__(self, target_ids: torch.Tensor | None, vocab_size: int) -> None:
        self._ids = target_ids
        self._vocab_size = vocab_size

    def tokens(self, rows: Sequence[DraftRow], logits: torch.Tensor, num_drafted: int) -> list[int]:
        """One of the model's ids a row, `num_drafted` drafts behind its last token."""
        best = logits.argmax(dim=-1)
        found = (best if self._ids is None else self._ids[best]).tolist()
        for place, row in enumerate(rows):
            if not row.sampling.greedy:
                found[place] = self._drawn(row, logits[place], num_drafted)
        return found

    def _drawn(self, row: DraftRow, logits: torch.Tensor, num_drafted: int) -> int:
        values = logits.cpu()
        if self._ids is not None:
            wide = torch.full((self._vocab_size,), float("-inf"))
            values = wide.index_copy_(0, self._ids.cpu(), values)
        sampling = row.sampling
        draw = Draw(
            row.seed,
            len(row.token_ids) + num_drafted,
            row.choice,
            sampling.temperature,
            sampling.top_k,
            sampling.top_p,
            sampling.min_p,
        )
        return sample(values[: self._vocab_size], draw)
