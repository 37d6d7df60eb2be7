from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtp_core.api import Commit, Draft, DraftRow, SpeculatorNeeds
from rtp_core.speculation.controller import MAX_BAD_DRAFTS, SpeculationController
from rtp_core.speculation.ngram import NgramSpeculator


def brute_force(tokens, min_n, max_n, count):
    for length in range(max_n, min_n - 1, -1):
        if length >= len(tokens):
            continue
        suffix = tokens[-length:]
        for end in range(len(tokens) - 1, length - 1, -1):
            if tokens[end - length : end] == suffix:
                return tokens[end : end + count]
    return []


@settings(deadline=None)
@given(
    tokens=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    growth=st.lists(st.integers(1, 5), max_size=8),
)
def test_index_equals_brute_force_while_the_sequence_grows(tokens, growth):
    speculator = NgramSpeculator(2, 4, 5)
    at = 0
    for step in [*growth, len(tokens)]:
        at = min(at + step, len(tokens))
        (draft,) = speculator.propose([DraftRow("a", tokens[:at], 5)])
        assert list(draft.token_ids) == brute_force(tokens[:at], 2, 4, 5)


def test_release_forgets_the_sequence():
    speculator = NgramSpeculator(2, 4, 5)
    speculator.propose([DraftRow("a", [1, 2, 3, 1, 2], 5)])
    speculator.release("a")
    (draft,) = speculator.propose([DraftRow("a", [1, 2], 5)])
    assert not draft.token_ids


class Fixed:
    """Always the same draft, or an exception."""

    def __init__(self, draft):
        self.needs = SpeculatorNeeds(4)
        self.draft = draft
        self.seen = []

    def propose(self, rows):
        if isinstance(self.draft, Exception):
            raise self.draft
        return [self.draft for _ in rows]

    def observe(self, commits):
        self.seen.extend(commits)

    def release(self, sequence_id):
        pass


def controller(*drafts, vocab=10):
    errors = []
    speculators = [(f"s{i}", Fixed(draft)) for i, draft in enumerate(drafts)]
    made = SpeculationController(speculators, 3, vocab, lambda name, error: errors.append(name))
    return made, errors


def test_first_that_drafts_wins_and_lengths_are_clamped():
    made, _ = controller(Draft(), Draft((1, 2, 3, 4, 5)))
    rows = [DraftRow("a", [1], 8), DraftRow("b", [1], 2)]
    assert made.propose(rows) == [("s1", Draft((1, 2, 3))), ("s1", Draft((1, 2)))]


def test_a_raising_drafter_is_dropped_once_and_others_go_on():
    made, errors = controller(ValueError("boom"), Draft((1,)))
    for _ in range(3):
        assert made.propose([DraftRow("a", [1], 4)]) == [("s1", Draft((1,)))]
    assert errors == ["s0"]


@pytest.mark.parametrize(
    "bad", [Draft((99,)), Draft((-1,)), Draft((1, 2), (0, 0)), Draft((1, 2), (-1,))]
)
def test_malformed_drafts_are_ignored_then_the_drafter_dropped(bad):
    made, errors = controller(bad)
    for _ in range(MAX_BAD_DRAFTS):
        assert made.active
        assert made.propose([DraftRow("a", [1], 4)]) == [("", Draft())]
    assert errors == ["s0"]
    assert not made.active


def test_accepted_tokens_are_counted_by_method():
    made, _ = controller(Draft((1, 2)))
    made.propose([DraftRow("a", [1], 4)])
    made.observe([Commit("a", (1, 5), 2, 1), Commit("b", (5,), 0, 0)])
    stats = made.stats
    assert (stats.drafts, stats.draft_tokens, stats.accepted_tokens) == (1, 2, 1)
    assert stats.method_tokens == {"s0": 1}
