"""Which tokens may be drafted: those that the model writes most."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch


def draft_vocabulary(
    answers: Iterable[Sequence[int]], size: int, vocab_size: int, always: Iterable[int]
) -> tuple[torch.Tensor, float]:
    """int64 [size] ascending ids, and the share of the answers' tokens that they cover.

    `always` are in whatever their number (special tokens); a `size` above the vocabulary is cut.
    Of equally frequent tokens the lower id comes first, so that equal data give equal heads.
    """
    counts = torch.zeros(vocab_size, dtype=torch.int64)
    for answer in answers:
        ids = torch.tensor(answer, dtype=torch.int64)
        counts += torch.bincount(ids, minlength=vocab_size)
    rank = counts.clone()
    fixed = torch.tensor(sorted(one for one in set(always) if one < vocab_size), dtype=torch.int64)
    rank[fixed] += int(counts.sum()) + 1
    order = torch.argsort(rank, descending=True, stable=True)
    ids = order[: max(size, len(fixed))].sort().values
    return ids, int(counts[ids].sum()) / max(1, int(counts.sum()))
