"""Steps that verify four drafts a row, whether drafts are right or wrong.

What random weights answer hangs on the last bit of their logits, so no drafter guesses it. Where
drafts are to be right, a bias of the logits makes one token the answer to everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpu.inside import set_speculator
from gpu.session import MARGIN, STEPS, Session
from rtp_core.api import Commit, Draft, DraftRow, SpeculatorNeeds
from rtp_core.engine.core import EngineCore

DRAFTS = 4
SECTIONS = {
    "speculation": {"methods": ["ngram"], "max_draft_tokens": DRAFTS},
    "scheduling": {"max_num_seqs": 64},
    "max_model_len": 2048,
}
"""An engine with room for drafts; what `ngram` proposes is replaced."""
_TOKEN = 7
BIAS = {_TOKEN: 100.0}


class Constant:
    """`api.Speculator` that drafts the same token for every row, as often as it may."""

    def __init__(self) -> None:
        self.needs = SpeculatorNeeds(DRAFTS)

    def propose(self, rows: Sequence[DraftRow]) -> Sequence[Draft]:
        return [Draft((_TOKEN,) * row.max_tokens) for row in rows]

    def observe(self, commits: Sequence[Commit]) -> None:
        """Learns nothing."""

    def release(self, sequence_id: str) -> None:
        """Keeps nothing."""


def verify(engine: EngineCore, vocab: int, batch: int, context: int) -> dict[str, dict]:
    """Steps with drafts that are all wrong, and with drafts that are all right."""
    session = Session(engine, vocab)
    set_speculator(engine, Constant())
    found = {}
    cases: tuple[tuple[str, int, dict[str, Any]], ...] = (
        ("wrong", 1, {}),
        ("right", 1 + DRAFTS, {"logit_bias": BIAS}),
    )
    for name, most, sampling in cases:
        output = (STEPS + MARGIN) * most
        for _ in range(batch):
            session.submit(context - STEPS * most // 2, output, **sampling)
        found[name] = session.steps(batch, 1 + DRAFTS, context + output)
    return found


def against_plain(found: dict[str, dict], plain: Mapping[str, float]) -> dict[str, dict]:
    """With the ratios to plain steps of an engine that never drafts."""
    for one in found.values():
        one["step_over_plain"] = one["step_s"] / plain["step_s"]
        one["graph_over_plain"] = one["graph_s"] / plain["graph_s"]
        one["speedup"] = one["tokens_per_row"] / one["step_over_plain"]
    return found
