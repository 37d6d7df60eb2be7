"""Small models repeat themselves; a loop teaches a drafter nothing and flatters its score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

GRAM, MOST_OFTEN = 8, 2
"""Text is free of loops while no run of `GRAM` tokens occurs more than `MOST_OFTEN` times."""


def loop_free_length(token_ids: Sequence[int]) -> int:
    """Tokens before the place where some run begins for one time too many; all if none does."""
    seen: Counter[tuple[int, ...]] = Counter()
    for start in range(len(token_ids) - GRAM + 1):
        gram = tuple(token_ids[start : start + GRAM])
        seen[gram] += 1
        if seen[gram] > MOST_OFTEN:
            return start
    return len(token_ids)
