"""How many tokens a step a head gives on texts it has not seen.

Whether a chain of drafts is accepted follows from the committed prefix alone. So drafting at
every position of a finished text, then walking through it from one committed token to the next,
gives what a real loop would have accepted: no loop is run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from rtp_core.api import DraftHead, TargetText
from rtp_core.training.noise import noise_of
from rtp_core.training.target import Target
from rtp_core.training.texts import Text

DEEPEST = 7
GREEDY = "greedy"


class Tally:
    """Acceptance of chains up to `depth` drafts, over texts."""

    def __init__(self, depth: int) -> None:
        self._tried = [0] * depth
        self._right = [0] * depth
        self._tokens = [0] * depth
        self._steps = [0] * depth
        self._texts = 0

    def add(self, right: torch.Tensor) -> None:
        """bool [rows, depth]: whether the drafts up to each were right, from every row on."""
        before = torch.ones_like(right[:, :1])
        reached = torch.cat((before, right[:, :-1]), dim=1)
        counts = right.sum(dim=1).tolist()
        for at, (tried, hit) in enumerate(
            zip(reached.sum(0).tolist(), right.sum(0).tolist(), strict=True)
        ):
            self._tried[at] += tried
            self._right[at] += hit
            tokens, steps = walk([min(one, at + 1) for one in counts])
            self._tokens[at] += tokens
            self._steps[at] += steps
        self._texts += 1

    def summary(self) -> dict[str, Any]:
        """`acceptance` of the i-th draft where those before were right; tokens a step by K."""
        ratios = zip(self._right, self._tried, strict=True)
        speeds = zip(self._tokens, self._steps, strict=True)
        return {
            "acceptance": [round(hit / max(1, tried), 3) for hit, tried in ratios],
            "tokens_per_step": {
                str(number): round(tokens / max(1, steps), 3)
                for number, (tokens, steps) in enumerate(speeds, 1)
            },
            "texts": self._texts,
            "tokens": self._tokens[0],
        }


def walk(accepted: Sequence[int]) -> tuple[int, int]:
    """(tokens, steps) of a loop that accepts `accepted[i]` drafts when it stands at token i."""
    at = steps = 0
    while at < len(accepted):
        at += accepted[at] + 1
        steps += 1
    return min(at, len(accepted)), steps


@torch.no_grad()
def right_drafts(
    head: DraftHead, text: Text, states: TargetText, depth: int, *, with_noise: bool = False
) -> torch.Tensor:
    """bool [rows, depth]; a row for each answer token but the first, which nobody drafts."""
    first = text.num_prompt - 1
    noise = noise_of(text.seed) if with_noise else None
    drafts = head.drafts(states, first, depth, text.temperature, noise)
    padded = functional.pad(states.token_ids, (0, depth), value=-1)
    truth = padded.unfold(0, depth, 1)[first + 2 : first + 2 + len(drafts)]
    return (drafts == truth).cumprod(dim=1).bool()


def evaluate(
    target: Target,
    heads: Mapping[str, tuple[DraftHead, Sequence[int]]],
    texts: Sequence[Text],
) -> dict[str, dict[str, Any]]:
    """By head: summaries by mode and source, mode ``greedy``, ``T=0.8`` (best tokens drafted)
    or ``T=0.8, shared noise``."""
    tallies: dict[str, dict[str, dict[str, Tally]]] = {name: defaultdict(dict) for name in heads}
    for text in texts:
        ids = torch.tensor(text.token_ids, device=target.device)
        for name, (head, layers) in heads.items():
            states = target.states(ids[None], layers)
            one = TargetText(ids, states.captured[0], states.final[0])
            depth = min(head.max_depth, DEEPEST)
            for mode, with_noise in _modes(text.temperature):
                tally = tallies[name][mode].setdefault(text.source, Tally(depth))
                tally.add(right_drafts(head, text, one, depth, with_noise=with_noise))
    return {
        name: {
            mode: {source: tally.summary() for source, tally in sorted(by_source.items())}
            for mode, by_source in modes.items()
        }
        for name, modes in tallies.items()
    }


def _modes(temperature: float) -> list[tuple[str, bool]]:
    if temperature == 0:
        return [(GREEDY, False)]
    return [(f"T={temperature}", False), (f"T={temperature}, shared noise", True)]
