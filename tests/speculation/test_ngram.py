from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtp_core.api import DraftRow
from rtp_core.errors import ConfigError
from rtp_core.speculation.ngram import NgramSpeculator
from rtp_core.speculation.plugin import SpeculationOptions, rtp_speculators


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


def test_the_newest_occurrence_of_the_longest_suffix_is_copied():
    speculator = NgramSpeculator(1, 3, 4)
    (draft,) = speculator.propose([DraftRow("a", [1, 2, 7, 1, 2, 8, 5, 2, 9, 1, 2], 3)])
    assert list(draft.token_ids) == [8, 5, 2]
    assert draft.parents is None


def test_sequences_do_not_learn_from_each_other():
    speculator = NgramSpeculator(2, 4, 5)
    drafts = speculator.propose([DraftRow("a", [1, 2, 3, 1, 2], 5), DraftRow("b", [9, 1, 2], 5)])
    assert [list(draft.token_ids) for draft in drafts] == [[3, 1, 2], []]


def test_a_draft_is_no_longer_than_its_row_has_room():
    speculator = NgramSpeculator(2, 4, 5)
    (draft,) = speculator.propose([DraftRow("a", [1, 2, 3, 4, 5, 1, 2], 2)])
    assert list(draft.token_ids) == [3, 4]


@pytest.mark.parametrize(("least", "most"), [(0, 4), (3, 2), (1, 17)])
def test_lengths_out_of_bounds_are_refused_by_name(least, most):
    (offer,) = rtp_speculators()
    with pytest.raises(ConfigError, match=r"core\.speculation.*out of bounds.*ngram_min <="):
        offer.build(None, SpeculationOptions(least, most))
